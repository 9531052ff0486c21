// OAuth client that uses npm openid-client.
import * as openid from 'openid-client';

import { TOKEN_EXCHANGE } from './oauth.mjs';
import { secret } from './secrets.mjs';

export class OpenidClient {
  static async connect(issuer, id, credential) {
    const authentication = credential.method === 'private_key_jwt'
      ? openid.PrivateKeyJwt({ key: credential.privateKey, kid: credential.kid })
      : openid.ClientSecretBasic(credential.secret);
    const client = new OpenidClient();
    client.id = id;
    client.config = await openid.discovery(new URL(issuer), id, undefined, authentication, {
      algorithm: 'oauth2', // RFC 8414, not OpenID Connect Discovery
      execute: [openid.allowInsecureRequests],
    });
    return client;
  }

  get metadata() {
    return this.config.serverMetadata();
  }

  async exchange(parameters) {
    const answer = await openid.genericGrantRequest(this.config, TOKEN_EXCHANGE, parameters);
    secret(answer.access_token);
    return answer;
  }

  async apiToken(scope) {
    const answer = await openid.clientCredentialsGrant(this.config, { scope });
    return secret(answer.access_token);
  }

  introspect(token) {
    return openid.tokenIntrospection(this.config, token, { token_type_hint: 'access_token' });
  }

  revoke(token) {
    return openid.tokenRevocation(this.config, token);
  }

  async stop() {}
}
