// Delegation of a part of a task to another agent.
import assert from 'node:assert/strict';

import * as jose from 'jose';

import { READ, WRITE } from '../lib/parties.mjs';
import { ACCESS_TOKEN, opening, refused } from '../lib/oauth.mjs';
import { newWorld } from '../lib/world.mjs';

const world = newWorld();
const NOTES = 'https://notes.example.com/mcp';

/** Returns the planner's task token and a hand-over token for the researcher. */
async function handOver() {
  const { planner } = world.clients;
  const { access_token: userToken } = await world.signIn('alice', 'planner');
  const own = await planner.exchange(opening(userToken, NOTES, `${READ} ${WRITE}`));
  const handed = await planner.exchange(handingTo('researcher', own));
  return { own, handed };
}

const handingTo = (agent, own) => ({
  subject_token: own.access_token,
  subject_token_type: ACCESS_TOKEN,
  requested_actor: agent,
  scope: READ,
});

const pickUp = (handed, scope = READ) => ({
  subject_token: handed.access_token,
  subject_token_type: ACCESS_TOKEN,
  resource: NOTES,
  scope,
});

world.test('token of a sub-agent names both agents and the person', async () => {
  const { own, handed } = await handOver();
  const parent = jose.decodeJwt(own.access_token);
  const between = jose.decodeJwt(handed.access_token);
  assert.equal(between.aud, world.errand.issuer);
  assert.equal(between.scope, READ);

  const picked = await world.clients.researcher.exchange(pickUp(handed));
  const claims = await world.clients.researcher.validate(picked.access_token, NOTES);
  assert.equal(claims.sub, 'alice');
  assert.equal(claims.sub_iss, world.idps.login.issuer);
  assert.equal(claims.client_id, 'researcher');
  assert.equal(claims.txn, parent.txn);
  assert.equal(claims.scope, READ);
  assert.deepEqual(claims.lineage, [parent.jti, between.jti]);
  assert.ok(claims.exp <= parent.exp);
  const { issuer } = world.errand;
  const hop = (sub) => ({ iss: issuer, sub, sub_profile: 'ai_agent' });
  assert.deepEqual(claims.act, { ...hop('researcher'), act: hop('planner') });

  const seen = await world.clients.notes.introspect(picked.access_token);
  assert.equal(seen.active, true);
  assert.deepEqual(seen.act, claims.act);
});

world.test('hand-over token is valid for one agent and its part only', async () => {
  const { own, handed } = await handOver();
  const { planner, researcher, courier, notes } = world.clients;

  await refused(courier.exchange(pickUp(handed)), 'actor_unauthorized');
  await refused(researcher.exchange(pickUp(handed, WRITE)), 'invalid_scope');
  // The researcher cannot use the planner's own token.
  await refused(researcher.exchange(pickUp(own)), 'actor_unauthorized');
  // The planner may delegate to the researcher only.
  await refused(planner.exchange(handingTo('courier', own)), 'actor_unauthorized');
  assert.deepEqual(await notes.introspect(handed.access_token), { active: false });
});

world.test('revoking the token of the first agent revokes that of the sub-agent', async () => {
  const { own, handed } = await handOver();
  const { planner, researcher, notes } = world.clients;
  const picked = await researcher.exchange(pickUp(handed));
  assert.equal((await notes.introspect(picked.access_token)).active, true);

  await planner.revoke(own.access_token);
  assert.deepEqual(await notes.introspect(picked.access_token), { active: false });
  await refused(researcher.exchange(pickUp(handed)), 'invalid_request');
});
