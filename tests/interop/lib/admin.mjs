// What an admin does over REST. Plain fetch: there is no library for it, and none is needed.
import assert from 'node:assert/strict';

export class AdminApi {
  constructor(issuer, token) {
    this.issuer = issuer;
    this.token = token;
  }

  /** Ends a task and all its tokens; when this returns, they are dead. */
  async endTask(task) {
    const revocation = { kind: 'task', id: task, reason: 'the interop suite says so' };
    const answer = await this.#send('POST', '/v1/admin/revocations', revocation);
    assert.ok(answer.ok, `the revocation was answered ${answer.status}: ${answer.text}`);
  }

  /** Suspends, resumes, completes or fails a task. */
  async turnTask(task, act) {
    const answer = await this.#send('POST', `/v1/admin/tasks/${task}/${act}`, { reason: 'the interop suite says so' });
    assert.ok(answer.ok, `to ${act} was answered ${answer.status}: ${answer.text}`);
  }

  /** The trail of a task: its records, and the answer's text as it came. */
  async trail(task) {
    const answer = await this.#send('GET', `/v1/admin/audit?task=${task}&limit=100`);
    assert.equal(answer.status, 200, answer.text);
    return { records: JSON.parse(answer.text).items.map(({ chained }) => chained.record), text: answer.text };
  }

  async #send(method, path, body) {
    const response = await fetch(this.issuer + path, {
      method,
      headers: { authorization: `Bearer ${this.token}`, ...(body && { 'content-type': 'application/json' }) },
      body: body && JSON.stringify(body),
    });
    return { ok: response.ok, status: response.status, text: await response.text() };
  }
}
