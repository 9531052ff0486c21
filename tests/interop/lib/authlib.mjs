// OAuth client that uses PyPI Authlib, in a Python process (clients/authlib_client.py).
import path from 'node:path';

import { Driver } from './child.mjs';
import { TOKEN_EXCHANGE } from './oauth.mjs';
import { HERE, PYTHON, PYTHON_ENV } from './python.mjs';
import { secret } from './secrets.mjs';

export class Authlib {
  static async connect(issuer, id, credential) {
    const client = new Authlib();
    client.id = id;
    const script = path.join(HERE, 'clients/authlib_client.py');
    client.driver = new Driver(`authlib ${id}`, PYTHON, [script], { env: PYTHON_ENV });
    await client.#ask({ do: 'connect', issuer, client_id: id, key: credential.privateJwk, secret: credential.secret });
    return client;
  }

  async exchange(parameters) {
    const answer = await this.#ask({ do: 'exchange', parameters: { grant_type: TOKEN_EXCHANGE, ...parameters } });
    secret(answer.access_token);
    return answer;
  }

  introspect(token) {
    return this.#ask({ do: 'introspect', token });
  }

  /** Returns the HTTP status of the revocation response. */
  revoke(token) {
    return this.#ask({ do: 'revoke', token });
  }

  /** Returns the claims after joserfc, the JOSE library of Authlib, has verified them. */
  verify(token, audience) {
    return this.#ask({ do: 'verify', token, audience });
  }

  async stop() {
    await this.driver.stop();
  }

  async #ask(question) {
    const { answer, error, description } = await this.driver.ask(question);
    if (error) throw Object.assign(new Error(`${error}: ${description}`), { error });
    return answer;
  }
}
