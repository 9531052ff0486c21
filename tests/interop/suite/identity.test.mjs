// What Errand makes of what an identity provider says: ID tokens, entitlement rules, RS256, and a key that it changes.
import assert from 'node:assert/strict';

import * as jose from 'jose';

import { READ, WRITE } from '../lib/cast.mjs';
import { ID_TOKEN, opening, refused } from '../lib/oauth.mjs';
import { until } from '../lib/poll.mjs';
import { newWorld } from '../lib/world.mjs';

const NOTES = 'https://notes.example.com/mcp';

const world = newWorld({
  idps: {
    login: {},
    // Scopes of its tokens say nothing: people of its group "finance" may read.
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

world.test('an ID token has no scope, and where the scope is the ceiling nothing can be had with it', async () => {
  const tokens = await world.signIn('alice', 'planner');
  await refused(world.clients.planner.exchange(byIdToken(tokens)), 'invalid_scope');
});

world.test('an ID token is enough where entitlement rules decide, and they do decide', async () => {
  const { planner, notes } = world.clients;
  const alice = await world.signIn('alice', 'planner', { idp: 'staff' });
  assert.equal(jose.decodeProtectedHeader(alice.id_token).alg, 'RS256');
  const answer = await planner.exchange(byIdToken(alice));
  const seen = await notes.introspect(answer.access_token);
  assert.equal(seen.sub, 'staff:alice');
  assert.equal(seen.act.sub, 'planner');
  await refused(planner.exchange(byIdToken(alice, WRITE)), 'invalid_scope');

  const bob = await world.signIn('bob', 'planner', { idp: 'staff' }); // of the kitchen
  await refused(planner.exchange(byIdToken(bob)), 'invalid_scope');
});

world.test('an ID token for one application is no evidence for the agent behind another one', async () => {
  const tokens = await world.signIn('alice', 'planner', { idp: 'staff' });
  await refused(world.clients.desk.exchange(byIdToken(tokens)), 'invalid_request'); // its `aud` is not this agent
});

world.test('the identity provider changes its key, and Errand finds the new one by its unknown kid', async () => {
  const { planner } = world.clients;
  const before = await world.signIn('alice', 'planner');
  await planner.exchange(opening(before.access_token, NOTES, READ));

  await world.idps.login.rotate();
  const after = await world.signIn('alice', 'planner');
  const kid = ({ access_token: token }) => jose.decodeProtectedHeader(token).kid;
  assert.notEqual(kid(after), kid(before));

  // An unknown kid makes Errand ask again, but at most once a minute: otherwise anybody could make it ask without end.
  const answer = await until(
    'Errand to know the new key',
    () => planner.exchange(opening(after.access_token, NOTES, READ)),
    { seconds: 75, every: 1000 },
  );
  assert.equal(answer.scope, READ);
  // What was signed with the old key is as good as before: the provider still publishes it.
  await planner.exchange(opening(before.access_token, NOTES, READ));
});
