// MCP servers that introspect every token, and MCP clients; both with the official SDKs.
import path from 'node:path';

import { Client, StreamableHTTPClientTransport, UnauthorizedError } from '@modelcontextprotocol/client';

import { READ } from './parties.mjs';
import { Child, Driver } from './child.mjs';
import { HERE, PYTHON, PYTHON_ENV } from './python.mjs';

const server = (command, file) => (issuer, id, { port, uri, credential }) =>
  new Child(id, command, [path.join(HERE, 'servers', file)], {
    env: {
      ...PYTHON_ENV,
      ERRAND_ISSUER: issuer,
      CLIENT_ID: id,
      CLIENT_SECRET: credential.secret,
      RESOURCE_URI: uri,
      REQUIRED_SCOPE: READ,
      PORT: String(port),
    },
  });

export const SERVERS = {
  'python-sdk': server(PYTHON, 'python_sdk.py'),
  fastmcp: server(PYTHON, 'fastmcp_server.py'),
  'typescript-v2': server(process.execPath, 'typescript_v2.mjs'),
  'typescript-v1': server(process.execPath, 'typescript_v1.mjs'),
};

/** The server responded with 401. */
export class Refused extends Error {}

/** An MCP session with the TypeScript SDK. */
export class TypeScriptClient {
  static async connect(uri, token) {
    const session = new TypeScriptClient();
    session.client = new Client({ name: 'interop', version: '1' });
    // The SDK requests the token before every request; an agent would exchange a fresh one here.
    const authProvider = { token: async () => token };
    await asRefusal(session.client.connect(new StreamableHTTPClientTransport(new URL(uri), { authProvider })));
    return session;
  }

  /** Returns the result of the tool `whoami`. */
  async whoami() {
    const { content } = await asRefusal(this.client.callTool({ name: 'whoami', arguments: {} }));
    return JSON.parse(content[0].text);
  }

  async close() {
    await this.client.close();
  }
}

/** An MCP session with the Python SDK, in a process that `startPython` starts. */
export class PythonClient {
  static #driver;

  static startPython() {
    const script = path.join(HERE, 'clients/mcp_client.py');
    PythonClient.#driver = new Driver('python mcp client', PYTHON, [script], { env: PYTHON_ENV });
    return PythonClient.#driver;
  }

  static async connect(uri, token) {
    await PythonClient.#ask({ do: 'connect', uri, token });
    return new PythonClient();
  }

  whoami() {
    return PythonClient.#ask({ do: 'whoami' });
  }

  async close() {
    await PythonClient.#ask({ do: 'close' });
  }

  static async #ask(question) {
    const { answer, error, status } = await PythonClient.#driver.ask(question);
    if (error) throw status === 401 ? new Refused(error) : new Error(error);
    return answer;
  }
}

function asRefusal(request) {
  return request.catch((error) => {
    throw error instanceof UnauthorizedError ? new Refused(error.message) : error;
  });
}
