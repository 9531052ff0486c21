// User tokens of a real Keycloak, exchanged as they come: `./dev interop keycloak`.
//
// KEYCLOAK_HOME is an unpacked distribution, and ERRAND_BIN the binary to test.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';

import { Child } from '../lib/child.mjs';
import { until } from '../lib/poll.mjs';
import { freePort } from '../lib/ports.mjs';

const REALM = 'main';
const PASSWORD = randomBytes(24).toString('hex');
const AGENT_SECRET = randomBytes(32).toString('hex');
const FILES = 'https://files.example.com/mcp';

let folder, keycloak, keycloakUrl, issuer, errand, errandUrl;

before(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'errand-keycloak-'));
  const port = await freePort();
  keycloakUrl = `http://127.0.0.1:${port}`;
  issuer = `${keycloakUrl}/realms/${REALM}`;
  errandUrl = `http://127.0.0.1:${await freePort()}`;
  // A database in memory: the one on disk would outlive the test, with its password.
  const args = ['start-dev', '--db=dev-mem', `--http-port=${port}`, '--http-host=127.0.0.1', '--http-management-port', String(await freePort())];
  keycloak = new Child('keycloak', path.join(process.env.KEYCLOAK_HOME, 'bin/kc.sh'), args, {
    env: { KC_BOOTSTRAP_ADMIN_USERNAME: 'admin', KC_BOOTSTRAP_ADMIN_PASSWORD: PASSWORD },
  });
  await keycloak.answers(`${keycloakUrl}/realms/master`, [200], 150);
  await createRealm();
});

after(async () => {
  await errand?.stop();
  await keycloak?.stop();
  await rm(folder, { recursive: true, force: true });
});

async function requestTokens(realm, parameters) {
  const url = `${keycloakUrl}/realms/${realm}/protocol/openid-connect/token`;
  const response = await fetch(url, { method: 'POST', body: new URLSearchParams(parameters) });
  const answer = await response.json();
  assert.equal(response.status, 200, JSON.stringify(answer));
  return answer;
}

/** Calls the administration of Keycloak. */
async function administer(method, at, body) {
  const login = { grant_type: 'password', client_id: 'admin-cli', username: 'admin', password: PASSWORD };
  const response = await fetch(`${keycloakUrl}/admin/realms${at}`, {
    method,
    headers: { authorization: `Bearer ${(await requestTokens('master', login)).access_token}`, 'content-type': 'application/json' },
    body: body && JSON.stringify(body),
  });
  const text = await response.text();
  assert.ok(response.ok, `${method} ${at}: ${response.status} ${text}`);
  return text ? JSON.parse(text) : undefined;
}

async function createRealm() {
  const mapper = {
    name: 'errand',
    protocol: 'openid-connect',
    protocolMapper: 'oidc-audience-mapper',
    config: { 'included.custom.audience': errandUrl, 'access.token.claim': 'true' },
  };
  await administer('POST', '', {
    realm: REALM,
    enabled: true,
    sslRequired: 'none',
    roles: { realm: [{ name: 'files-reader' }] },
    clients: [
      { clientId: 'planner-app', publicClient: true, directAccessGrantsEnabled: true, protocolMappers: [mapper] },
    ],
    users: [
      {
        username: 'alice',
        enabled: true,
        email: 'alice@example.com',
        firstName: 'Alice',
        lastName: 'Example',
        credentials: [{ type: 'password', value: PASSWORD }],
        // The composite of default roles adds the audience `account`.
        realmRoles: ['files-reader', `default-roles-${REALM}`],
      },
      {
        username: 'bob',
        enabled: true,
        email: 'bob@example.com',
        firstName: 'Bob',
        lastName: 'Example',
        credentials: [{ type: 'password', value: PASSWORD }],
        realmRoles: [`default-roles-${REALM}`],
      },
    ],
  });
}

const userTokens = (username) =>
  requestTokens(REALM, { grant_type: 'password', client_id: 'planner-app', username, password: PASSWORD, scope: 'openid' });

const userToken = async (username) => (await userTokens(username)).access_token;

const decode = (token, part) => JSON.parse(Buffer.from(token.split('.')[part], 'base64url'));

/** Starts Errand with these settings for the realm. */
async function startErrand(settings, { name = issuer, agent = 'planner-app' } = {}) {
  await errand?.stop();
  const file = (name) => path.join(folder, name);
  const write = (name, text) => writeFile(file(name), text, { mode: 0o600 });
  await write('kek', randomBytes(32).toString('base64'));
  await write('agent.secret', AGENT_SECRET);
  await rm(file('errand.db'), { force: true });
  await write('errand.toml', `
issuer = "${errandUrl}"
trust_domain = "example.com"
listen = "${errandUrl.slice('http://'.length)}"
store.url = "sqlite:${file('errand.db')}"
keys.encryption_key_file = "kek"

[[issuers]]
issuer = "${name}"
keys = "discovery"
allowed_networks = ["127.0.0.0/8"]
algorithms = ["RS256"]
audiences = ["${errandUrl}"]
${settings}

[[agents]]
id = "planner"
authentication = { method = "client_secret_basic", secret_file = "agent.secret" }
known_as = { "${name}" = ["${agent}"] }
access = [{ resource = "files", scopes = ["files:read"] }]

[[resources]]
id = "files"
uri = "${FILES}"
authentication = { method = "client_secret_basic" }
tools = [{ name = "read_file", scope = "files:read", effect = "read" }]
`);
  errand = new Child('errand', process.env.ERRAND_BIN, ['serve', '--config', file('errand.toml')]);
  await errand.answers(`${errandUrl}/readyz`, [200], 30);
}

async function exchange(token, type = 'access_token', more = {}) {
  const response = await fetch(`${errandUrl}/oauth2/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${Buffer.from(`planner:${AGENT_SECRET}`).toString('base64')}` },
    body: new URLSearchParams({
      grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
      subject_token: token,
      subject_token_type: `urn:ietf:params:oauth:token-type:${type}`,
      resource: FILES,
      scope: 'files:read',
      purpose: 'interop with Keycloak',
      ...more,
    }),
  });
  return { status: response.status, retryAfter: response.headers.get('retry-after'), ...(await response.json()) };
}

/** Checks that an exchange is refused, and that the answer says why. */
function assertRefused(answer, error, text) {
  const { status, error: found, error_description: description } = answer;
  assert.deepEqual([status, found], [400, error], description);
  assert.ok(description.includes(text), description);
}

/** Runs a command of Errand with the file of the server. */
function command(...args) {
  return promisify(execFile)(process.env.ERRAND_BIN, [...args, '--config', path.join(folder, 'errand.toml')]);
}

const BY_ROLE = `subject_scopes = "ignore"
entitlements = [{ to = { claim = { path = ["realm_access", "roles"], value = "files-reader" } }, resource = "files", scopes = ["files:read"] }]`;
const RECIPE = `token_types = ["jwt"]\nother_audiences = "accept"\n${BY_ROLE}`;

test('errors name the setting that a token of Keycloak needs', async () => {
  const token = await userToken('alice');
  assert.equal(decode(token, 0).typ, 'JWT');
  assert.ok(Array.isArray(decode(token, 1).aud), 'each audience mapper adds a value');
  await startErrand(`token_types = ["access_token"]\n${BY_ROLE}`);
  for (const type of ['access_token', 'jwt']) {
    assertRefused(await exchange(token, type), 'invalid_request', "add 'jwt' to the issuer's `token_types`");
  }
  await startErrand(`token_types = ["jwt"]\n${BY_ROLE}`);
  assertRefused(await exchange(token), 'invalid_request', "other_audiences = 'accept'");
  await startErrand(RECIPE);
  assertRefused(await exchange(token, 'id_token'), 'invalid_request', "add 'id_token' to the issuer's `token_types`");
  assertRefused(await exchange(token, 'access_token', { resource: `${FILES}/` }), 'invalid_target', FILES);
  const changed = `${token.slice(0, -4)}AAAA`;
  assertRefused(await exchange(changed), 'invalid_request', 'does not verify');
  await startErrand(RECIPE, { agent: 'another-app' });
  assertRefused(await exchange(token), 'actor_unauthorized', 'known_as');
  await startErrand(RECIPE, { name: `${issuer}/` });
  assertRefused(await exchange(token), 'invalid_request', 'another spelling');
});

test('the token is exchanged as it comes, and nested roles decide', async () => {
  await startErrand(RECIPE);
  const token = await userToken('alice');
  for (const type of ['access_token', 'jwt']) {
    const answer = await exchange(token, type);
    assert.equal(answer.status, 200, JSON.stringify(answer));
    const claims = decode(answer.access_token, 1);
    assert.deepEqual([claims.sub, claims.sub_iss], [decode(token, 1).sub, issuer]);
  }
  assertRefused(await exchange(await userToken('bob')), 'invalid_scope', 'requester');
});

test('an ID token is exchanged where its type is accepted', async () => {
  await startErrand(RECIPE.replace('["jwt"]', '["jwt", "id_token"]').replace('"realm_access", "roles"', '"email"').replace('"files-reader"', '"alice@example.com"'));
  const { id_token: token } = await userTokens('alice');
  const answer = await exchange(token, 'id_token');
  assert.equal(answer.status, 200, JSON.stringify(answer));
  // Keycloak's ID tokens have `at_hash`: they can't pass for access tokens.
  assertRefused(await exchange(token, 'jwt'), 'invalid_request', '`at_hash` marks an ID token');
});

test('the log says how the metadata differs from the configuration', async () => {
  await startErrand(RECIPE, { name: `${issuer}/` });
  await until('the log line', () => errand.output.includes('they differ in the trailing slash alone'));
  assert.ok(errand.output.includes(issuer), errand.tail());
});

test('keys are rotated and withdrawn while Errand runs', async () => {
  await startErrand(RECIPE);
  const old = await userToken('alice');
  assert.equal((await exchange(old)).status, 200);
  const { id: parent } = await administer('GET', `/${REALM}`);
  const type = 'org.keycloak.keys.KeyProvider';
  await administer('POST', `/${REALM}/components`, {
    name: 'newer',
    parentId: parent,
    providerId: 'rsa-generated',
    providerType: type,
    config: { priority: ['1000'], enabled: ['true'], active: ['true'], algorithm: ['RS256'] },
  });
  const components = await administer('GET', `/${REALM}/components?type=${type}`);
  const component = components.find(({ name }) => name === 'newer');
  const rotated = await userToken('alice');
  assert.notEqual(decode(rotated, 0).kid, decode(old, 0).kid);
  assert.equal((await exchange(rotated)).status, 200, 'an unknown `kid` causes a fetch');
  assert.equal((await exchange(old)).status, 200, 'the older key is still published');

  // An admin withdraws a key that the provider still publishes.
  const { kid } = decode(old, 0);
  await command('issuers', 'refresh', issuer, '--withdraw', kid, '--reason', 'leaked');
  assertRefused(await exchange(old), 'invalid_request', 'withdrawn');
  assert.equal((await exchange(rotated)).status, 200);
  await command('issuers', 'refresh', issuer, '--restore', kid, '--reason', 'not leaked');
  assert.equal((await exchange(old)).status, 200);

  // The provider withdraws the newer key. Errand knows when it reads the keys again.
  await administer('PUT', `/${REALM}/components/${component.id}`, {
    ...component,
    config: { ...component.config, enabled: ['false'] },
  });
  await command('issuers', 'refresh', issuer, '--reason', 'the provider withdrew a key');
  assertRefused(await exchange(rotated), 'invalid_request', 'no key');
  assert.equal((await exchange(old)).status, 200);
});

test('keys in use outlive an outage of Keycloak, and an unknown key is an outage', async () => {
  await startErrand(RECIPE);
  const token = await userToken('alice');
  assert.equal((await exchange(token)).status, 200);
  await keycloak.stop();
  assert.equal((await exchange(token)).status, 200, 'the cached keys are used');
  const [header, ...rest] = token.split('.');
  const unknown = Buffer.from(JSON.stringify({ ...decode(token, 0), kid: 'unknown' })).toString('base64url');
  assert.notEqual(unknown, header);
  const answer = await exchange([unknown, ...rest].join('.'));
  assert.deepEqual([answer.status, answer.error, answer.retryAfter !== null], [503, 'temporarily_unavailable', true], JSON.stringify(answer));
});
