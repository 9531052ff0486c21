// Token exchange with OAuth client libraries; other libraries verify the tokens.
import assert from 'node:assert/strict';

import * as jose from 'jose';

import { READ, TRUST_DOMAIN, WRITE } from '../lib/parties.mjs';
import { ACCESS_TOKEN, TXN_TOKEN, opening, refused } from '../lib/oauth.mjs';
import { newWorld } from '../lib/world.mjs';

const world = newWorld();
const NOTES = 'https://notes.example.com/mcp';

world.test('openid-client and oauth4webapi discover Errand by RFC 8414', async () => {
  const { issuer } = world.errand;
  for (const metadata of [world.clients.planner.metadata, world.clients.researcher.metadata]) {
    assert.equal(metadata.issuer, issuer);
    assert.equal(metadata.token_endpoint, `${issuer}/oauth2/token`);
    assert.equal(metadata.introspection_endpoint, `${issuer}/oauth2/introspect`);
    assert.equal(metadata.revocation_endpoint, `${issuer}/oauth2/revoke`);
    assert.equal(metadata.jwks_uri, `${issuer}/oauth2/jwks`);
    assert.ok(metadata.grant_types_supported.includes('urn:ietf:params:oauth:grant-type:token-exchange'));
    for (const method of ['private_key_jwt', 'client_secret_basic']) {
      assert.ok(metadata.token_endpoint_auth_methods_supported.includes(method), method);
    }
  }
});

for (const agent of ['planner', 'researcher', 'courier', 'desk']) {
  world.test(`${agent} exchanges a user token for a task token that names the person and the agent`, async () => {
    const { access_token: userToken } = await world.signIn('alice', agent);
    const answer = await world.clients[agent].exchange(opening(userToken, NOTES, READ));

    assert.equal(answer.token_type.toLowerCase(), 'bearer');
    assert.equal(answer.issued_token_type, ACCESS_TOKEN);
    assert.equal(answer.scope, READ);
    assert.ok(answer.expires_in > 0 && answer.expires_in <= 300, `expires_in ${answer.expires_in}`);
    assert.equal(answer.refresh_token, undefined);

    const { header, claims } = await verify(answer.access_token, NOTES);
    assert.equal(header.typ, 'at+jwt');
    assert.equal(header.alg, 'ES256');
    assert.equal(claims.sub, 'alice');
    assert.equal(claims.sub_iss, world.idps.login.issuer);
    assert.equal(claims.client_id, agent);
    assert.equal(claims.aud, NOTES);
    assertHop(claims.act, agent);
    assert.equal(claims.act.act, undefined);
    assert.match(claims.txn, /^[0-9a-f-]{36}$/);
    assert.equal(claims.txn, answer.txn);
    assert.equal(claims.task.id, claims.txn);
    assert.equal(claims.tctx.purpose, 'write the minutes of the meeting');
    assert.deepEqual(claims.lineage, []);
    assert.equal(claims.scope, READ);
    const expected = { type: 'mcp_tool', locations: [NOTES], identifier: 'whoami' };
    assert.deepEqual(claims.authorization_details.map(named), [expected]);
    assert.deepEqual(answer.authorization_details, claims.authorization_details);

    const user = jose.decodeJwt(userToken);
    assert.ok(claims.exp <= user.exp, 'the task token expires after the user token');
    for (const name of ['auth_time', 'acr', 'amr']) assert.deepEqual(claims[name], user[name], name);
  });
}

world.test('oauth4webapi and joserfc accept a task token as a JWT access token', async () => {
  const { access_token: userToken } = await world.signIn('alice', 'courier');
  const { access_token: token } = await world.clients.courier.exchange(opening(userToken, NOTES, READ));

  const byOauth4webapi = await world.clients.vault.validate(token, NOTES);
  const byJoserfc = await world.clients.courier.verify(token, NOTES);
  assert.equal(byOauth4webapi.sub, 'alice');
  assert.equal(byJoserfc.sub, 'alice');
  await assert.rejects(world.clients.vault.validate(token, 'https://vault.example.com/mcp'));
});

world.test('transaction token is not accepted as an access token', async () => {
  const { access_token: userToken } = await world.signIn('alice', 'planner');
  const answer = await world.clients.planner.exchange(
    opening(userToken, undefined, READ, { audience: TRUST_DOMAIN, requested_token_type: TXN_TOKEN }),
  );
  assert.equal(answer.token_type.toLowerCase(), 'n_a');
  assert.equal(answer.issued_token_type, TXN_TOKEN);

  const { header, claims } = await verify(answer.access_token, TRUST_DOMAIN);
  assert.equal(header.typ, 'txntoken+jwt');
  assert.equal(claims.sub, 'alice');
  assert.equal(claims.req_wl, 'planner');
  assertHop(claims.act, 'planner');
  await assert.rejects(world.clients.vault.validate(answer.access_token, TRUST_DOMAIN), /typ|JWT/);
  assert.deepEqual(await world.clients.notes.introspect(answer.access_token), { active: false });
});

world.test('excessive requests are refused with OAuth errors', async () => {
  const { planner, researcher, courier, desk } = world.clients;
  const tokens = await world.signIn('alice', 'planner');
  const ask = (change, scope = READ) => opening(tokens.access_token, NOTES, scope, change);

  await refused(planner.exchange(ask({ resource: 'https://elsewhere.example.com/mcp' })), 'invalid_target');
  await refused(planner.exchange(ask({ resource: undefined })), 'invalid_target');
  await refused(planner.exchange(ask({ scope: 'notes:burn' })), 'invalid_scope');
  await refused(planner.exchange(ask({ purpose: undefined })), 'invalid_request');
  await refused(planner.exchange(ask({ subject_token: `${tokens.access_token}x` })), 'invalid_request');

  // Token splicing: the user token was issued to the planner's application, not to this agent.
  for (const other of [researcher, courier, desk]) {
    await refused(other.exchange(ask({})), 'actor_unauthorized');
  }

  // Ceiling of the user token, and ceiling of the agent.
  const narrow = await world.signIn('alice', 'planner', { scopes: [READ] });
  await refused(planner.exchange(opening(narrow.access_token, NOTES, WRITE)), 'invalid_scope');
  const wide = await world.signIn('alice', 'desk');
  await refused(desk.exchange(opening(wide.access_token, NOTES, WRITE)), 'invalid_scope');
});

/** Verifies signature, issuer and audience with npm jose and Errand's JWKS. */
async function verify(token, audience) {
  const keys = jose.createRemoteJWKSet(new URL(world.clients.planner.metadata.jwks_uri));
  const { protectedHeader, payload } = await jose.jwtVerify(token, keys, { issuer: world.errand.issuer, audience });
  return { header: protectedHeader, claims: payload };
}

function assertHop(act, agent) {
  assert.equal(act.iss, world.errand.issuer);
  assert.equal(act.sub, agent);
  assert.equal(act.sub_profile, 'ai_agent');
}

/** Returns the part of an authorization detail that names the tool. */
function named({ type, locations, identifier }) {
  return { type, locations, identifier };
}
