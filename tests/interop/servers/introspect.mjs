// What both TypeScript servers ask Errand about the token of every request (RFC 7662).

const { ERRAND_ISSUER, CLIENT_ID, CLIENT_SECRET, RESOURCE_URI, REQUIRED_SCOPE, PORT } = process.env;

export const resource = new URL(RESOURCE_URI);
export const requiredScopes = [REQUIRED_SCOPE];
export const port = Number(PORT);

/** What the SDKs serve to clients that ask which authorization server to go to. */
export async function oauthMetadata() {
  const answer = await fetch(`${ERRAND_ISSUER}/.well-known/oauth-authorization-server`);
  return answer.json();
}

/** What the SDKs want to know of a good token, or nothing. */
export async function introspect(token) {
  const answer = await fetch(`${ERRAND_ISSUER}/oauth2/introspect`, {
    method: 'POST',
    headers: { authorization: `Basic ${btoa(`${CLIENT_ID}:${CLIENT_SECRET}`)}` },
    body: new URLSearchParams({ token, token_type_hint: 'access_token' }),
  });
  if (!answer.ok) throw new Error(`introspection was answered ${answer.status}`);
  const { active, aud, sub, act, client_id, scope, exp } = await answer.json();
  if (!active || aud !== RESOURCE_URI) return undefined;
  return { token, clientId: client_id, scopes: scope.split(' '), expiresAt: exp, extra: { sub, act } };
}

/** The answer of the tool `whoami`: on whose behalf, and by which agent, it was called. */
export function whoami({ clientId, scopes, extra }) {
  const text = JSON.stringify({ requester: extra.sub, agent: clientId, act: extra.act, scopes });
  return { content: [{ type: 'text', text }] };
}
