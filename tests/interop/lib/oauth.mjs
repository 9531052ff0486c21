// The words of OAuth that the tests say, and how they look at a refusal.
import assert from 'node:assert/strict';

export const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';

const TYPE = 'urn:ietf:params:oauth:token-type:';
export const ACCESS_TOKEN = `${TYPE}access_token`;
export const ID_TOKEN = `${TYPE}id_token`;
export const TXN_TOKEN = `${TYPE}txn_token`;

/** The parameters of an exchange that opens a task. `change` adds, and takes out what it says is undefined. */
export function opening(userToken, resource, scope, change = {}) {
  return given({
    subject_token: userToken,
    subject_token_type: ACCESS_TOKEN,
    resource,
    scope,
    purpose: 'write the minutes of the meeting',
    ...change,
  });
}

export function given(parameters) {
  return Object.fromEntries(Object.entries(parameters).filter(([, value]) => value !== undefined));
}

/** The request must be refused with this OAuth error code, whatever library sent it. */
export async function refused(request, code) {
  const outcome = await request.then(
    () => 'was granted',
    (error) => error.error ?? error,
  );
  if (outcome instanceof Error) throw outcome;
  assert.equal(outcome, code);
}
