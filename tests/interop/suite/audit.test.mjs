// The audit records of a task.
import assert from 'node:assert/strict';

import * as jose from 'jose';

import { READ } from '../lib/parties.mjs';
import { opening } from '../lib/oauth.mjs';
import { until } from '../lib/poll.mjs';
import { assertNoSecretIn } from '../lib/secrets.mjs';
import { newWorld } from '../lib/world.mjs';

const world = newWorld();

world.test('audit records of a task show issuance, introspection and revocation, but no token', async () => {
  const { planner, notes } = world.clients;
  const { access_token: userToken } = await world.signIn('alice', 'planner');
  const { access_token: token, txn } = await planner.exchange(opening(userToken, world.resources.notes.uri, READ));
  await notes.introspect(token);
  await world.admin.endTask(txn);

  // Issuance and revocation are durable before the response. Introspections are written later.
  const expected = [
    ['token.issue', 'done'],
    ['token.introspect', 'active'],
    ['revocation', 'done'],
  ];
  const { records, text } = await until('all audit records', async () => {
    const trail = await world.admin.trail(txn);
    return expected.every(([event, outcome]) => find(trail.records, event, outcome)) && trail;
  });

  const issue = find(records, 'token.issue', 'done');
  assert.equal(issue.requester.subject, 'alice');
  assert.equal(issue.requester.issuer, world.idps.login.issuer);
  assert.equal(issue.client, 'planner');
  assert.deepEqual(issue.agents, ['planner']);
  assert.equal(issue.task, txn);
  assert.equal(issue.purpose, 'write the minutes of the meeting');
  assert.equal(issue.token, jose.decodeJwt(token).jti);
  assert.equal(find(records, 'token.introspect', 'active').client, 'notes');
  assert.match(find(records, 'revocation', 'done').admin, /ops/);
  assert.equal(find(records, 'revocation', 'done').reason, 'interop test');
  assertNoSecretIn('the audit trail', text);
});

function find(records, event, outcome) {
  return records.find((record) => record.event === event && record.outcome === outcome);
}
