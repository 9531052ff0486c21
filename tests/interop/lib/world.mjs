// Environment of a test file: identity providers, Errand on its store, clients of several
// libraries, and MCP servers. All of them start and stop together.
import { rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';

import { AdminApi } from './admin.mjs';
import { Authlib } from './authlib.mjs';
import { ADMINS, AGENTS, READ, RESOURCES, WRITE, appOf } from './parties.mjs';
import { newCredential } from './credentials.mjs';
import { Errand } from './errand.mjs';
import { IdentityProvider } from './idp.mjs';
import { Oauth4webapi } from './oauth4webapi.mjs';
import { OpenidClient } from './openid_client.mjs';
import { freePort } from './ports.mjs';
import { assertNoSecretIn, secret } from './secrets.mjs';
import { STORE, newStore } from './store.mjs';

const LIBRARIES = { 'openid-client': OpenidClient, oauth4webapi: Oauth4webapi, authlib: Authlib };

/**
 * Creates the environment of the calling test file, from its first test to its last.
 *
 * `idps` are the identity providers: name -> { algorithm, policy }. The policy is configuration on the
 * meaning of the token scope, which is the ceiling by default. `servers` start MCP servers: name ->
 * function of (Errand's issuer, the server's client id, its entry in `resources`) that returns the process.
 */
export function newWorld({ idps = { login: {} }, servers = {} } = {}) {
  const world = new World(idps, servers);
  before(() => world.start());
  after(() => world.stop());
  return world;
}

class World {
  idps = {};
  clients = {};
  #options;
  #stops = [];
  #processes = [];

  constructor(idps, servers) {
    this.#options = { idps, servers };
  }

  /** Defines a test that shows the output of the processes when it fails. */
  test(name, body) {
    test(`${name} [${STORE}]`, async () => {
      try {
        await body();
      } catch (error) {
        this.#report();
        throw error;
      }
    });
  }

  async start() {
    this.folder = await mkdtemp(path.join(os.tmpdir(), 'errand-interop-'));
    const remove = () => rmSync(this.folder, { recursive: true, force: true });
    process.once('exit', remove); // contains secrets, so remove it even on interruption
    this.#atEnd(async () => remove());
    this.store = await newStore(this.folder);
    this.#atEnd(() => this.store.drop());
    try {
      await this.#startIdps((this.port = await freePort()));
      await this.#equip();
      await this.#startErrand();
      await this.#connectClients();
      await this.#startServers();
    } catch (error) {
      this.#report();
      throw error;
    }
  }

  async #startIdps(errandPort) {
    const clients = Object.keys(AGENTS).map(appOf);
    const audience = `http://127.0.0.1:${errandPort}`;
    for (const [name, { algorithm, policy = '' }] of Object.entries(this.#options.idps)) {
      const idp = await IdentityProvider.start({ audience, scopes: [READ, WRITE], clients, algorithm });
      this.idps[name] = Object.assign(idp, { policy });
      this.#atEnd(() => idp.stop());
    }
  }

  /** Creates the credentials of all clients. */
  async #equip() {
    const resources = { ...RESOURCES };
    for (const id of Object.keys(this.#options.servers)) {
      const port = await freePort();
      // Every MCP SDK supports introspection with a secret.
      const uri = `http://127.0.0.1:${port}/mcp`;
      resources[id] = { library: 'openid-client', method: 'client_secret_basic', port, uri };
    }
    const equip = async ([id, party]) => {
      return [id, { ...party, credential: await newCredential(id, party.method, this.folder) }];
    };
    const all = async (parties) => Object.fromEntries(await Promise.all(Object.entries(parties).map(equip)));
    this.agents = await all(AGENTS);
    this.resources = await all(resources);
    this.admins = await all(ADMINS);
  }

  async #startErrand() {
    const { port, folder, store, agents, resources, admins } = this;
    const idps = Object.values(this.idps);
    this.errand = await Errand.start({ port, folder, store, idps, agents, resources, admins });
    this.keep(this.errand.process);
  }

  async #connectClients() {
    const parties = { ...this.agents, ...this.resources, ...this.admins };
    for (const [id, { library, credential }] of Object.entries(parties)) {
      const client = await LIBRARIES[library].connect(this.errand.issuer, id, credential);
      this.clients[id] = client;
      this.#atEnd(() => client.stop());
    }
    this.admin = new AdminApi(this.errand.issuer, await this.clients.ops.apiToken('errand:admin errand:audit'));
  }

  async #startServers() {
    const starts = Object.entries(this.#options.servers).map(async ([id, start]) => {
      const server = this.keep(start(this.errand.issuer, id, this.resources[id]));
      // A 401 without a token shows that the server is up.
      await server.answers(this.resources[id].uri, [401]);
    });
    await Promise.all(starts);
  }

  /** Stops a process at the end, and shows its output when a test fails. */
  keep(child) {
    this.#processes.push(child);
    this.#atEnd(() => child.stop());
    return child;
  }

  /** Signs a user in to the application of an agent. Returns { access_token, id_token }. */
  async signIn(person, agent, { idp = 'login', scopes } = {}) {
    const tokens = await this.idps[idp].signIn(person, appOf(agent), scopes);
    secret(tokens.access_token);
    secret(tokens.id_token);
    return tokens;
  }

  async stop() {
    const failures = [];
    for (const stop of this.#stops.reverse()) {
      await stop().catch((error) => failures.push(error));
    }
    if (failures.length > 0) throw new AggregateError(failures, 'some processes could not be stopped');
    // No token, assertion or secret may be in the logs.
    if (this.errand) assertNoSecretIn("Errand's log", this.errand.process.output);
  }

  #atEnd(stop) {
    this.#stops.push(stop);
  }

  #report() {
    for (const each of this.#processes) console.error(each.tail());
  }
}
