// Everything that must stay secret in this process: tokens and client secrets. At the end, and in the audit trail, the
// suite looks whether one of them shows up where it must not.
import assert from 'node:assert/strict';

const secrets = new Set();

export function secret(text) {
  secrets.add(text);
  // A token without its beginning is as bad: the signature alone must not show up either.
  const signature = text.split('.')[2];
  if (signature) secrets.add(signature);
  return text;
}

export function assertNoSecretIn(where, text) {
  const found = [...secrets].filter((each) => text.includes(each)).length;
  assert.equal(found, 0, `${found} tokens or secrets stand in ${where}`);
}
