// Database of an Errand server: a file, or a database on the PostgreSQL server in the environment.
import { randomBytes } from 'node:crypto';
import path from 'node:path';

import pg from 'pg';

/** The store of this run; `run` iterates over all of them. */
export const STORE = process.env.INTEROP_STORE ?? 'sqlite';

export async function newStore(folder) {
  switch (STORE) {
    case 'sqlite':
      return { url: `sqlite://${path.join(folder, 'errand.db')}`, async drop() {} };
    case 'postgres':
      return newDatabase();
    default:
      throw new Error(`INTEROP_STORE is "${STORE}"; set it to "sqlite" or "postgres"`);
  }
}

async function newDatabase() {
  const server = process.env.ERRAND_TEST_POSTGRES_URL;
  if (!server) throw new Error('ERRAND_TEST_POSTGRES_URL is not set; run ./dev test');
  const name = `errand_interop_${randomBytes(6).toString('hex')}`;
  await administer(server, `CREATE DATABASE ${name}`);
  const url = new URL(server);
  url.pathname = `/${name}`;
  return { url: url.href, drop: () => administer(server, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`) };
}

async function administer(server, statement) {
  const client = new pg.Client({ connectionString: server });
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}
