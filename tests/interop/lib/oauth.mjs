// OAuth parameters and the check of refusals.
import assert from 'node:assert/strict';

export const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';

const TYPE = 'urn:ietf:params:oauth:token-type:';
export const ACCESS_TOKEN = `${TYPE}access_token`;
export const ID_TOKEN = `${TYPE}id_token`;
export const TXN_TOKEN = `${TYPE}txn_token`;

/** Returns the parameters of an exchange that opens a task. `change` overrides them; `undefined` removes one. */
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

/** Checks that the request is refused with this OAuth error code, in the error type of any library. */
export async function refused(request, code) {
  const outcome = await request.then(
    () => 'the request was granted',
    (error) => error.error ?? error,
  );
  if (outcome instanceof Error) throw outcome;
  assert.equal(outcome, code);
}
