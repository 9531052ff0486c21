// Identity provider: oidc-provider, with users who sign in with authorization code and PKCE.
import { once } from 'node:events';
import http from 'node:http';

import * as jose from 'jose';
import { Provider } from 'oidc-provider';
import * as openid from 'openid-client';

import { freePort } from './ports.mjs';

const GROUPS = { alice: ['finance'], bob: ['kitchen'] };
// No server listens there: the code is read from the redirect.
const REDIRECT_URI = 'http://127.0.0.1:1/callback';
const CLIENT_SECRET = 'only-for-this-test-provider';

export class IdentityProvider {
  #keys = [];
  #answer;
  #server = http.createServer((request, response) => this.#answer(request, response));
  #signedInAt = Math.floor(Date.now() / 1000) - 90;

  /**
   * `audience` is the `aud` of its access tokens, `scopes` their possible scopes, `clients` the names of
   * the applications that users sign in to, `algorithm` the signature algorithm.
   */
  static async start({ audience, scopes, clients, algorithm = 'ES256' }) {
    const idp = new IdentityProvider();
    Object.assign(idp, { audience, scopes, clients, algorithm, port: await freePort() });
    idp.issuer = `http://127.0.0.1:${idp.port}`;
    await idp.rotate();
    idp.#server.listen(idp.port, '127.0.0.1');
    await once(idp.#server, 'listening');
    return idp;
  }

  /** Switches to a new signing key; older keys stay published. */
  async rotate() {
    const { privateKey } = await jose.generateKeyPair(this.algorithm, { extractable: true });
    const kid = `${this.algorithm.toLowerCase()}-${this.#keys.length + 1}`;
    // The provider signs with the first matching key.
    this.#keys.unshift({ ...(await jose.exportJWK(privateKey)), kid, use: 'sig', alg: this.algorithm });
    // The keys of a provider are fixed, so create a new provider with the new key.
    this.#answer = this.#provider().callback();
  }

  async stop() {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #provider() {
    return new Provider(this.issuer, {
      jwks: { keys: this.#keys },
      cookies: { keys: ['only-for-this-test-provider'] },
      clients: this.clients.map((client_id) => ({
        client_id,
        client_secret: CLIENT_SECRET,
        redirect_uris: [REDIRECT_URI],
        id_token_signed_response_alg: this.algorithm,
      })),
      enabledJWA: { idTokenSigningAlgValues: ['ES256', 'RS256'] },
      features: {
        devInteractions: { enabled: true },
        resourceIndicators: {
          enabled: true,
          useGrantedResource: () => true,
          getResourceServerInfo: () => ({
            audience: this.audience,
            scope: this.scopes.join(' '),
            accessTokenTTL: 600,
            accessTokenFormat: 'jwt',
            jwt: { sign: { alg: this.algorithm } },
          }),
        },
      },
      // Authentication context: an exchange must copy it unchanged.
      extraTokenClaims: () => ({ auth_time: this.#signedInAt, acr: 'urn:example:loa2', amr: ['hwk'] }),
      claims: { groups: ['groups'] },
      conformIdTokenClaims: false, // puts the groups into the ID token, for entitlement rules
      findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, groups: GROUPS[id] ?? [] }) }),
      pkce: { required: () => true },
      ttl: { Interaction: 600, Session: 600, Grant: 600, IdToken: 600 },
    });
  }

  /** Signs a user in to an application. Returns its `access_token` and `id_token`. */
  async signIn(person, client, scopes = this.scopes) {
    const authentication = openid.ClientSecretBasic(CLIENT_SECRET);
    const config = await openid.discovery(new URL(this.issuer), client, undefined, authentication, {
      execute: [openid.allowInsecureRequests],
    });
    const verifier = openid.randomPKCECodeVerifier();
    const start = openid.buildAuthorizationUrl(config, {
      redirect_uri: REDIRECT_URI,
      scope: ['openid', 'groups', ...scopes].join(' '),
      code_challenge: await openid.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
      resource: this.audience,
    });
    const end = await new Browser().signIn(start.href, person);
    return openid.authorizationCodeGrant(config, end, { pkceCodeVerifier: verifier }, { resource: this.audience });
  }
}

/** A browser with a user: keeps cookies, follows redirects, fills in the two forms. */
class Browser {
  #cookies = new Map();

  async signIn(start, person) {
    let url = start;
    for (let step = 0; step < 15; step++) {
      const page = await this.#load(url);
      if (page.location) {
        url = page.location;
      } else {
        const form = readForm(page.html);
        const fields = { prompt: form.prompt, ...(form.prompt === 'login' && { login: person, password: 'x' }) };
        const sent = await this.#load(new URL(form.action, url), { method: 'POST', body: new URLSearchParams(fields) });
        url = sent.location;
      }
      if (url.startsWith(REDIRECT_URI)) return new URL(url);
    }
    throw new Error('the sign-in did not complete');
  }

  async #load(url, options = {}) {
    const cookie = [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const answer = await fetch(url, { ...options, redirect: 'manual', headers: { cookie } });
    for (const line of answer.headers.getSetCookie()) {
      const [, name, value] = line.match(/^([^=]+)=([^;]*)/);
      if (value) this.#cookies.set(name, value);
      else this.#cookies.delete(name);
    }
    const html = await answer.text();
    const location = answer.headers.get('location');
    if (!location && !answer.ok) throw new Error(`the provider responded with ${answer.status} at ${url}`);
    return { html, location: location && new URL(location, url).href };
  }
}

function readForm(html) {
  const action = html.match(/action="([^"]+)"/)?.[1].replaceAll('&amp;', '&');
  const prompt = html.match(/name="prompt" value="(\w+)"/)?.[1];
  if (!action || !prompt) throw new Error('the page of the provider does not contain the expected form');
  return { action, prompt };
}
