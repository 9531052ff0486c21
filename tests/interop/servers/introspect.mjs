// Introspection of the token of every request (RFC 7662), for both TypeScript servers.

const { ERRAND_ISSUER, CLIENT_ID, CLIENT_SECRET, RESOURCE_URI, REQUIRED_SCOPE, PORT } = process.env;

export const resource = new URL(RESOURCE_URI);
export const requiredScopes = [REQUIRED_SCOPE];
export const port = Number(PORT);

/** Protected resource metadata, which the SDKs serve. */
export async function oauthMetadata() {
  const answer = await fetch(`${ERRAND_ISSUER}/.well-known/oauth-authorization-server`);
  return answer.json();
}

/** Returns the token information that the SDKs expect, or nothing if the token is inactive. */
export async function introspect(token) {
  const answer = await fetch(`${ERRAND_ISSUER}/oauth2/introspect`, {
    method: 'POST',
    headers: { authorization: `Basic ${btoa(`${CLIENT_ID}:${CLIENT_SECRET}`)}` },
    body: new URLSearchParams({ token, token_type_hint: 'access_token' }),
  });
  if (!answer.ok) throw new Error(`introspection: status ${answer.status}`);
  const { active, aud, sub, act, client_id, scope, exp } = await answer.json();
  if (!active || aud !== RESOURCE_URI) return undefined;
  return { token, clientId: client_id, scopes: scope?.split(' ') ?? [], expiresAt: exp, extra: { sub, act } };
}

/** Returns the result of the tool `whoami`: the person and the agent of the call. */
export function whoami({ clientId, scopes, extra }) {
  const text = JSON.stringify({ requester: extra.sub, agent: clientId, act: extra.act, scopes });
  return { content: [{ type: 'text', text }] };
}
