// Admin REST API, with plain fetch.
import assert from 'node:assert/strict';

export class AdminApi {
  constructor(issuer, token) {
    this.issuer = issuer;
    this.token = token;
  }

  /** Revokes a task. When this returns, all its tokens are inactive. */
  async endTask(task) {
    const revocation = { kind: 'task', id: task, reason: 'interop test' };
    const answer = await this.#send('POST', '/v1/admin/revocations', revocation);
    assert.ok(answer.ok, `revocation: status ${answer.status}: ${answer.text}`);
  }

  /** Suspends, resumes, completes or fails a task. */
  async turnTask(task, act) {
    const answer = await this.#send('POST', `/v1/admin/tasks/${task}/${act}`, { reason: 'interop test' });
    assert.ok(answer.ok, `${act}: status ${answer.status}: ${answer.text}`);
  }

  /** Returns the audit records of a task and the raw text of the response. */
  async trail(task) {
    const answer = await this.#send('GET', `/v1/admin/audit?task=${task}&limit=100`);
    assert.equal(answer.status, 200, answer.text);
    return { records: JSON.parse(answer.text).items.map(({ record }) => record), text: answer.text };
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
