// An Errand server process with its own configuration file and store.
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';

import { Child } from './child.mjs';
import { configuration } from './config.mjs';

export class Errand {
  static async start({ port, folder, store, ...parties }) {
    const binary = process.env.ERRAND_BIN;
    if (!binary) throw new Error('ERRAND_BIN is not set; start the suite with tests/interop/run');

    const listen = `127.0.0.1:${port}`;
    const issuer = `http://${listen}`;
    const encryptionKeyFile = path.join(folder, 'encryption.key');
    await writeFile(encryptionKeyFile, randomBytes(32).toString('base64'), { mode: 0o600 });
    // A PostgreSQL URL contains a password, which must not be in the configuration file.
    const storeUrlFile = path.join(folder, 'store.url');
    await writeFile(storeUrlFile, store.url, { mode: 0o600 });
    const configFile = path.join(folder, 'errand.toml');
    const text = configuration({ issuer, listen, storeUrlFile, encryptionKeyFile, ...parties });
    await writeFile(configFile, text, { mode: 0o600 });

    // A server never migrates a shared database.
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
