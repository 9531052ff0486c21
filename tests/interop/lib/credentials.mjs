// Client credentials, and the files with their counterparts for Errand.
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';

import * as jose from 'jose';

import { secret } from './secrets.mjs';

/** Creates a key pair or a secret for client `id`; Errand reads `file`. */
export async function newCredential(id, method, folder) {
  if (method === 'client_secret_basic') {
    const file = path.join(folder, `${id}.secret`);
    const text = secret(randomBytes(32).toString('base64url'));
    await writeFile(file, text, { mode: 0o600 });
    return { method, secret: text, file };
  }
  const file = path.join(folder, `${id}.jwks.json`);
  const kid = `${id}-1`;
  const { privateKey, publicKey } = await jose.generateKeyPair('ES256', { extractable: true });
  const publicJwk = { ...(await jose.exportJWK(publicKey)), kid, use: 'sig', alg: 'ES256' };
  await writeFile(file, JSON.stringify({ keys: [publicJwk] }));
  return { method, privateKey, privateJwk: { ...(await jose.exportJWK(privateKey)), kid }, kid, file };
}
