// Status lists, read with a third-party library.
import assert from 'node:assert/strict';

import { getListFromStatusListJWT, getStatusListFromJWT } from '@sd-jwt/jwt-status-list';
import * as jose from 'jose';

import { READ } from '../lib/parties.mjs';
import { opening } from '../lib/oauth.mjs';
import { until } from '../lib/poll.mjs';
import { newWorld } from '../lib/world.mjs';

const world = newWorld();
const [VALID, INVALID, SUSPENDED] = [0, 1, 2];

async function taskToken() {
  const { access_token: userToken } = await world.signIn('alice', 'planner');
  const { uri } = world.resources.notes;
  const { access_token: token } = await world.clients.planner.exchange(opening(userToken, uri, READ));
  return token;
}

/** Reads the status of a token, as a verifier that only knows the JWKS of Errand. */
async function statusOf(token) {
  const { uri, idx } = getStatusListFromJWT(token);
  const response = await fetch(uri, { headers: { accept: 'application/statuslist+jwt' } });
  assert.equal(response.status, 200);
  assert.equal(response.headers.get('content-type'), 'application/statuslist+jwt');
  const list = await response.text();
  const keys = jose.createRemoteJWKSet(new URL(`${world.errand.issuer}/oauth2/jwks`));
  const { payload } = await jose.jwtVerify(list, keys, {
    typ: 'statuslist+jwt',
    issuer: world.errand.issuer,
    subject: uri,
    requiredClaims: ['iat', 'exp', 'ttl', 'status_list'],
    maxTokenAge: 20,
  });
  assert.equal(payload.exp, payload.iat + 2 * payload.ttl);
  const statuses = getListFromStatusListJWT(list);
  assert.equal(statuses.getBitsPerStatus(), 2);
  assert.throws(() => statuses.getStatus(statuses.statusList.length), 'an index beyond the end is accepted');
  return statuses.getStatus(idx);
}

const becomes = (token, status) =>
  until(`status ${status}`, async () => (await statusOf(token)) === status);

world.test('@sd-jwt/jwt-status-list reads a token as valid, and as invalid after its task is revoked', async () => {
  const [mine, other] = [await taskToken(), await taskToken()];
  assert.equal(await statusOf(mine), VALID);
  await world.admin.endTask(jose.decodeJwt(mine).txn);
  await becomes(mine, INVALID);
  assert.equal(await statusOf(other), VALID);
});

world.test('@sd-jwt/jwt-status-list reads a token as suspended, and as valid after it is resumed', async () => {
  const token = await taskToken();
  const { txn } = jose.decodeJwt(token);
  for (const [act, status] of [['suspend', SUSPENDED], ['resume', VALID], ['suspend', SUSPENDED], ['resume', VALID]]) {
    await world.admin.turnTask(txn, act);
    await becomes(token, status);
  }
});

world.test('metadata contains the URL of the status list aggregation', async () => {
  const { uri } = getStatusListFromJWT(await taskToken());
  const metadata = await (await fetch(`${world.errand.issuer}/.well-known/oauth-authorization-server`)).json();
  const { status_lists: lists } = await (await fetch(metadata.status_list_aggregation_endpoint)).json();
  assert.ok(lists.includes(uri), `${uri} in ${lists}`);
});
