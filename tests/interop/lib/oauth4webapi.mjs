// OAuth client that uses npm oauth4webapi: one call per protocol step.
import * as oauth from 'oauth4webapi';

import { TOKEN_EXCHANGE } from './oauth.mjs';
import { secret } from './secrets.mjs';

const INSECURE = { [oauth.allowInsecureRequests]: true }; // http: all servers are on this machine

export class Oauth4webapi {
  static async connect(issuer, id, credential) {
    const client = new Oauth4webapi();
    const url = new URL(issuer);
    client.id = id;
    client.server = await oauth.processDiscoveryResponse(
      url,
      await oauth.discoveryRequest(url, { algorithm: 'oauth2', ...INSECURE }),
    );
    client.client = { client_id: id };
    client.authentication = credential.method === 'private_key_jwt'
      ? oauth.PrivateKeyJwt({ key: credential.privateKey, kid: credential.kid })
      : oauth.ClientSecretBasic(credential.secret);
    return client;
  }

  get metadata() {
    return this.server;
  }

  async exchange(parameters) {
    const { server, client, authentication } = this;
    const response = await oauth.genericTokenEndpointRequest(
      server, client, authentication, TOKEN_EXCHANGE, new URLSearchParams(parameters), INSECURE,
    );
    const answer = await oauth.processGenericTokenEndpointResponse(server, client, response, {
      recognizedTokenTypes: { n_a: () => {} }, // RFC 8693 §2.2.1: not a bearer token
    });
    secret(answer.access_token);
    return answer;
  }

  async introspect(token) {
    const { server, client, authentication } = this;
    const response = await oauth.introspectionRequest(server, client, authentication, token, INSECURE);
    return oauth.processIntrospectionResponse(server, client, response);
  }

  /** Requests a signed response (RFC 9701) and verifies its claims and signature. */
  async introspectSigned(token) {
    const { server, authentication } = this;
    const client = { ...this.client, introspection_signed_response_alg: 'ES256' };
    const response = await oauth.introspectionRequest(server, client, authentication, token, {
      requestJwtResponse: true,
      ...INSECURE,
    });
    const contentType = response.headers.get('content-type');
    const answer = await oauth.processIntrospectionResponse(server, client, response);
    await oauth.validateApplicationLevelSignature(server, response, INSECURE);
    return { contentType, answer };
  }

  async revoke(token) {
    const { server, client, authentication } = this;
    const response = await oauth.revocationRequest(server, client, authentication, token, INSECURE);
    await oauth.processRevocationResponse(response);
  }

  /** Verifies a token offline, as a resource server (RFC 9068 §4). */
  validate(token, audience) {
    const request = new Request('https://resource.invalid/', { headers: { authorization: `Bearer ${token}` } });
    return oauth.validateJwtAccessToken(this.server, request, audience, INSECURE);
  }

  async stop() {}
}
