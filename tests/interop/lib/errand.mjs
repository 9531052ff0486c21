// Errand itself, as a process, with a configuration file and a store of its own.
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';

import { Child } from './child.mjs';
import { configuration } from './config.mjs';

export class Errand {
  static async start({ port, folder, store, ...cast }) {
    const binary = process.env.ERRAND_BIN;
    if (!binary) throw new Error('ERRAND_BIN is not set: start the suite by tests/interop/run');

    const listen = `127.0.0.1:${port}`;
    const issuer = `http://${listen}`;
    const encryptionKeyFile = path.join(folder, 'encryption.key');
    await writeFile(encryptionKeyFile, randomBytes(32).toString('base64'), { mode: 0o600 });
    // There is a password in a Postgres URL, and no secret stands in the configuration itself.
    const storeUrlFile = path.join(folder, 'store.url');
    await writeFile(storeUrlFile, store.url, { mode: 0o600 });
    const configFile = path.join(folder, 'errand.toml');
    const text = configuration({ issuer, listen, storeUrlFile, encryptionKeyFile, ...cast });
    await writeFile(configFile, text, { mode: 0o600 });

    // The schema of a shared database changes when an operator says so, never by a server that happens to start.
    await new Child('errand migrate', binary, ['migrate', '--config', configFile], { cwd: folder }).succeeds();

    const errand = new Errand();
    errand.issuer = issuer;
    errand.process = new Child('errand', binary, ['serve', '--config', configFile], { cwd: folder });
    try {
      await errand.process.answers(`${issuer}/readyz`);
    } catch (error) {
      await errand.stop();
      throw error;
    }
    return errand;
  }

  async stop() {
    await this.process.stop();
  }
}
