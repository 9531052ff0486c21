// Introspection and revocation with OAuth client libraries.
import assert from 'node:assert/strict';

import { READ } from '../lib/parties.mjs';
import { opening, refused } from '../lib/oauth.mjs';
import { newWorld } from '../lib/world.mjs';

const world = newWorld();
const INACTIVE = { active: false }; // no other member (RFC 7662 §2.2)

async function taskToken(agent, resource, change) {
  const { access_token: userToken } = await world.signIn('alice', agent);
  return world.clients[agent].exchange(opening(userToken, world.resources[resource].uri, READ, change));
}

function assertDescribes(answer, agent, resource) {
  assert.equal(answer.active, true);
  assert.equal(answer.iss, world.errand.issuer);
  assert.equal(answer.aud, world.resources[resource].uri);
  assert.equal(answer.sub, 'alice');
  assert.equal(answer.client_id, agent);
  assert.equal(answer.scope, READ);
  assert.equal(answer.act.sub, agent);
  assert.equal(answer.act.iss, world.errand.issuer);
  assert.equal(answer.authorization_details[0].identifier, 'whoami');
  for (const name of ['exp', 'iat', 'jti', 'txn']) assert.ok(answer[name], name);
}

world.test('openid-client introspects with a secret and sees the person and the agent', async () => {
  const { access_token: token } = await taskToken('planner', 'notes');
  assertDescribes(await world.clients.notes.introspect(token), 'planner', 'notes');
});

world.test('oauth4webapi introspects with a signed assertion, in plain JSON and signed (RFC 9701)', async () => {
  const { access_token: token } = await taskToken('researcher', 'vault');
  assertDescribes(await world.clients.vault.introspect(token), 'researcher', 'vault');

  const { contentType, answer } = await world.clients.vault.introspectSigned(token);
  assert.match(contentType, /^application\/token-introspection\+jwt/);
  assertDescribes(answer, 'researcher', 'vault');

  const strange = await world.clients.vault.introspectSigned('not-a-token');
  assert.deepEqual(strange.answer, INACTIVE);
});

world.test('token for another resource is inactive', async () => {
  const { access_token: token } = await taskToken('planner', 'notes');
  assert.deepEqual(await world.clients.vault.introspect(token), INACTIVE);
  assert.deepEqual(await world.clients.notes.introspect('not-a-token'), INACTIVE);
});

world.test('resource introspects with an API token from client_credentials', async () => {
  const { access_token: token } = await taskToken('planner', 'notes');
  const apiToken = await world.clients.notes.apiToken('errand:introspect');
  const introspect = (authorization) => fetch(`${world.errand.issuer}/oauth2/introspect`, {
    method: 'POST',
    headers: authorization && { authorization },
    body: new URLSearchParams({ token }),
  });
  const answer = await introspect(`Bearer ${apiToken}`);
  assert.equal(answer.status, 200);
  assertDescribes(await answer.json(), 'planner', 'notes');
  assert.equal((await introspect()).status, 401);
  await refused(world.clients.notes.apiToken('errand:admin'), 'invalid_scope');
});

world.test('token revoked by openid-client is inactive', async () => {
  const { access_token: token } = await taskToken('planner', 'notes');
  assert.equal((await world.clients.notes.introspect(token)).active, true);
  await world.clients.planner.revoke(token);
  assert.deepEqual(await world.clients.notes.introspect(token), INACTIVE);
  await world.clients.planner.revoke(token); // an invalid token can be revoked too (RFC 7009 §2.2)
});

world.test('token revoked by Authlib is inactive', async () => {
  const { access_token: token } = await taskToken('courier', 'vault');
  assert.equal((await world.clients.vault.introspect(token)).active, true);
  assert.equal(await world.clients.courier.revoke(token), 200);
  assert.deepEqual(await world.clients.vault.introspect(token), INACTIVE);
});

world.test('agent cannot revoke the token of another one', async () => {
  const { access_token: token } = await taskToken('planner', 'notes');
  // RFC 7009 allows an error and a success.
  await world.clients.researcher.revoke(token).catch(() => {});
  assert.equal((await world.clients.notes.introspect(token)).active, true);
});

world.test('tokens of a task revoked by an admin are inactive', async () => {
  const { planner, notes } = world.clients;
  const { uri } = world.resources.notes;
  const { access_token: userToken } = await world.signIn('alice', 'planner');
  const first = await planner.exchange(opening(userToken, uri, READ));
  const again = opening(userToken, uri, READ, { task_id: first.txn, purpose: undefined });
  const second = await planner.exchange(again);
  assert.equal(second.txn, first.txn);

  await world.admin.endTask(first.txn);
  assert.deepEqual(await notes.introspect(first.access_token), INACTIVE);
  assert.deepEqual(await notes.introspect(second.access_token), INACTIVE);
  await refused(planner.exchange(again), 'invalid_request');
});
