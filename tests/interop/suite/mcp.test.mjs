// MCP servers of every SDK, protected by Errand: tool calls succeed only while the token is active.
import assert from 'node:assert/strict';
import { before } from 'node:test';

import { discoverAuthorizationServerMetadata } from '@modelcontextprotocol/client';

import { READ } from '../lib/parties.mjs';
import { PythonClient, Refused, SERVERS, TypeScriptClient } from '../lib/mcp.mjs';
import { opening } from '../lib/oauth.mjs';
import { newWorld } from '../lib/world.mjs';

const world = newWorld({ servers: SERVERS });
before(() => world.keep(PythonClient.startPython()));

async function taskToken(uri) {
  const { access_token: userToken } = await world.signIn('alice', 'planner');
  return world.clients.planner.exchange(opening(userToken, uri, READ));
}

world.test('the MCP client library understands the metadata of Errand', async () => {
  const metadata = await discoverAuthorizationServerMetadata(world.errand.issuer);
  assert.equal(metadata.issuer, world.errand.issuer);
  assert.equal(metadata.token_endpoint, `${world.errand.issuer}/oauth2/token`);
});

for (const server of Object.keys(SERVERS)) {
  world.test(`${server} server: refuses invalid requests as specified`, async () => {
    const { uri } = world.resources[server];
    const { access_token: forAnother } = await taskToken(world.resources.notes.uri);
    for (const token of [undefined, 'not-a-token', forAnother]) {
      const answer = await post(uri, token);
      assert.equal(answer.status, 401);
      const challenge = answer.headers.get('www-authenticate');
      assert.match(challenge, /^Bearer /);
      // RFC 9728: the challenge refers to the metadata that names the authorization server.
      const [, metadataUri] = challenge.match(/resource_metadata="([^"]+)"/);
      const metadata = await (await fetch(metadataUri)).json();
      assert.equal(metadata.resource, uri);
      assert.deepEqual(metadata.authorization_servers.map((each) => each.replace(/\/$/, '')), [world.errand.issuer]);
    }
  });

  for (const [language, Client] of [['Python', PythonClient], ['TypeScript', TypeScriptClient]]) {
    const pair = `${server} server, ${language} client`;

    world.test(`${pair}: the tool sees person and agent until an admin revokes the task`, async () => {
      const { uri } = world.resources[server];
      const { access_token: token, txn } = await taskToken(uri);
      const session = await Client.connect(uri, token);
      try {
        const seen = await session.whoami();
        assert.equal(seen.requester, 'alice');
        assert.equal(seen.agent, 'planner');
        assert.deepEqual(seen.act, { iss: world.errand.issuer, sub: 'planner', sub_profile: 'ai_agent' });
        assert.deepEqual(seen.scopes, [READ]);

        await world.admin.endTask(txn);
        await assert.rejects(session.whoami(), Refused);
      } finally {
        await session.close();
      }
      assert.equal((await post(uri, token)).status, 401);
      await assert.rejects(Client.connect(uri, token), Refused);
    });

    world.test(`${pair}: missing tokens and tokens for another server are refused`, async () => {
      const { uri } = world.resources[server];
      const { access_token: forAnother } = await taskToken(world.resources.notes.uri);
      await assert.rejects(Client.connect(uri, undefined), Refused);
      await assert.rejects(Client.connect(uri, forAnother), Refused);
    });
  }
}

/** Sends the first message of an MCP session without a library, to see status and challenge. */
function post(uri, token) {
  return fetch(uri, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      ...(token && { authorization: `Bearer ${token}` }),
    },
    body: JSON.stringify({
      jsonrpc: '2.0',
      id: 1,
      method: 'initialize',
      params: { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'interop', version: '1' } },
    }),
  });
}
