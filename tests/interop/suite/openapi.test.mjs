// schemathesis checks that the responses of Errand match openapi/errand.yaml.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import path from 'node:path';

import * as jose from 'jose';

import { READ } from '../lib/parties.mjs';
import { Child } from '../lib/child.mjs';
import { opening } from '../lib/oauth.mjs';
import { until } from '../lib/poll.mjs';
import { HERE, PYTHON_ENV } from '../lib/python.mjs';
import { secret } from '../lib/secrets.mjs';
import { newWorld } from '../lib/world.mjs';

const DESCRIPTION = path.resolve(HERE, '../../openapi/errand.yaml');

const world = newWorld();

world.test('responses match openapi/errand.yaml, without server errors', async () => {
  assert.ok(existsSync(DESCRIPTION), `${DESCRIPTION} is missing`);
  const { access_token: userToken } = await world.signIn('alice', 'planner');
  const open = opening(userToken, world.resources.notes.uri, READ);
  const { access_token: token, txn } = await world.clients.planner.exchange(open);
  const run = world.keep(new Child('schemathesis', path.join(HERE, '.venv/bin/schemathesis'), [
    '--config-file', path.join(HERE, 'schemathesis.toml'),
    '--no-color',
    'run', DESCRIPTION,
    '--url', world.errand.issuer,
    '--generation-deterministic', // reproducible failures
    '--request-timeout', '60',
  ], {
    cwd: world.folder, // it writes files into its working directory
    env: {
      ...PYTHON_ENV,
      AGENT_CREDENTIALS: basic('desk', world.agents.desk),
      RESOURCE_CREDENTIALS: basic('notes', world.resources.notes),
      ADMIN_TOKEN: world.admin.token,
      TASK_ID: txn,
      TOKEN_ID: jose.decodeJwt(token).jti,
    },
  }));
  // schemathesis.toml bounds the number of requests; lower it there if this timeout is too short.
  await until('schemathesis to end', () => !run.alive, { seconds: 600, every: 200 });
  assert.equal(run.process.exitCode, 0, `schemathesis reported failures\n${run.tail(150)}`);
  assert.match(run.output, /Test cases:\n +[1-9]\d+ generated/, `schemathesis generated almost no cases\n${run.tail(150)}`);
});

function basic(id, { credential }) {
  return secret(btoa(`${id}:${credential.secret}`));
}
