// Identity providers: ID tokens, entitlement rules, RS256 and key rotation.
import assert from 'node:assert/strict';

import * as jose from 'jose';

import { READ, WRITE } from '../lib/parties.mjs';
import { ID_TOKEN, opening, refused } from '../lib/oauth.mjs';
import { until } from '../lib/poll.mjs';
import { newWorld } from '../lib/world.mjs';

const NOTES = 'https://notes.example.com/mcp';

const world = newWorld({
  idps: {
    login: {},
    // The scope of its tokens has no effect; users in the group "finance" may read.
    staff: {
      algorithm: 'RS256',
      policy: `subject_prefix = "staff:"
subject_scopes = "ignore"

[[issuers.entitlements]]
to = { claim = { name = "groups", value = "finance" } }
scopes = [${JSON.stringify(READ)}]
`,
    },
  },
});

const byIdToken = (tokens, scope = READ) => opening(tokens.id_token, NOTES, scope, { subject_token_type: ID_TOKEN });

world.test('ID token without a scope grants nothing where the scope is the ceiling', async () => {
  const tokens = await world.signIn('alice', 'planner');
  await refused(world.clients.planner.exchange(byIdToken(tokens)), 'invalid_scope');
});

world.test('ID token suffices where entitlement rules decide', async () => {
  const { planner, notes } = world.clients;
  const alice = await world.signIn('alice', 'planner', { idp: 'staff' });
  assert.equal(jose.decodeProtectedHeader(alice.id_token).alg, 'RS256');
  const answer = await planner.exchange(byIdToken(alice));
  const seen = await notes.introspect(answer.access_token);
  assert.equal(seen.sub, 'staff:alice');
  assert.equal(seen.act.sub, 'planner');
  await refused(planner.exchange(byIdToken(alice, WRITE)), 'invalid_scope');

  const bob = await world.signIn('bob', 'planner', { idp: 'staff' }); // not in the group "finance"
  await refused(planner.exchange(byIdToken(bob)), 'invalid_scope');
});

world.test('ID token for one application is refused for the agent of another one', async () => {
  const tokens = await world.signIn('alice', 'planner', { idp: 'staff' });
  await refused(world.clients.desk.exchange(byIdToken(tokens)), 'invalid_request'); // the `aud` is not this agent
});

world.test('Errand fetches a rotated key when it sees an unknown kid', async () => {
  const { planner } = world.clients;
  const before = await world.signIn('alice', 'planner');
  await planner.exchange(opening(before.access_token, NOTES, READ));

  await world.idps.login.rotate();
  const after = await world.signIn('alice', 'planner');
  const kid = ({ access_token: token }) => jose.decodeProtectedHeader(token).kid;
  assert.notEqual(kid(after), kid(before));

  // An unknown kid causes a fetch at most once a minute; otherwise any client could cause endless
  // fetches.
  const answer = await until(
    'Errand to know the new key',
    () => planner.exchange(opening(after.access_token, NOTES, READ)),
    { seconds: 75, every: 1000 },
  );
  assert.equal(answer.scope, READ);
  // Tokens signed with the old key stay valid: the provider still publishes it.
  await planner.exchange(opening(before.access_token, NOTES, READ));
});
