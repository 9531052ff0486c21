// All tokens and client secrets of this process. The suite checks that none of them is in logs or
// in the audit trail.
import assert from 'node:assert/strict';

const secrets = new Set();

export function secret(text) {
  secrets.add(text);
  // The signature alone must not appear either.
  const signature = text.split('.')[2];
  if (signature) secrets.add(signature);
  return text;
}

export function assertNoSecretIn(where, text) {
  const found = [...secrets].filter((each) => text.includes(each)).length;
  assert.equal(found, 0, `${found} tokens or secrets found in ${where}`);
}
