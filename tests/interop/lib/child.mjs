// Child processes of a test. They end with the test, and their output is shown when it fails.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

import { until } from './poll.mjs';

const running = new Set();
process.on('exit', () => running.forEach((child) => child.process.kill('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));

export class Child {
  output = '';
  stopping = false;

  constructor(name, command, args, { env = {}, stdin = 'ignore', cwd } = {}) {
    this.name = name;
    this.process = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio: [stdin, 'pipe', 'pipe'] });
    running.add(this);
    this.process.on('error', (error) => this.#note(`could not start: ${error.message}\n`));
    this.process.on('exit', (code, signal) => {
      running.delete(this);
      if (!this.stopping) this.#note(`[${name} exited: ${signal ?? code}]\n`);
    });
    // A driver responds on standard output; everything else is ordinary output.
    if (stdin === 'ignore') this.process.stdout.on('data', (data) => this.#note(data));
    this.process.stderr.on('data', (data) => this.#note(data));
  }

  #note(data) {
    this.output += data;
  }

  get alive() {
    return this.process.pid !== undefined && this.process.exitCode === null && this.process.signalCode === null;
  }

  /** Waits for the process to exit successfully. */
  async succeeds(seconds = 120) {
    await until(`${this.name} to end`, () => !this.alive, { seconds });
    if (this.process.exitCode !== 0) throw new Error(`${this.name} failed\n${this.tail()}`);
  }

  /** Waits until `url` responds with one of these statuses. */
  async answers(url, statuses = [200], seconds = 120) {
    await until(`${this.name} at ${url}\n${this.tail()}`, async () => {
      if (!this.alive) return true;
      return statuses.includes((await fetch(url)).status);
    }, { seconds }).catch((error) => {
      throw new Error(`${error.message.split('\n')[0]}\n${this.tail()}`, { cause: error.cause });
    });
    if (!this.alive) throw new Error(`${this.name} exited before it was ready\n${this.tail()}`);
  }

  async stop() {
    this.stopping = true;
    if (!this.alive) return;
    const ended = once(this.process, 'exit');
    this.process.kill('SIGTERM');
    const hard = setTimeout(() => this.process.kill('SIGKILL'), 30_000);
    await ended;
    clearTimeout(hard);
  }

  /** Returns the last lines of the output. */
  tail(lines = 40) {
    const all = this.output.trimEnd().split('\n');
    return all.slice(-lines).map((line) => `  ${this.name} | ${line}`).join('\n');
  }
}

/** A child with one request at a time: a line of JSON in, a line of JSON out. */
export class Driver extends Child {
  constructor(name, command, args, options = {}) {
    super(name, command, args, { ...options, stdin: 'pipe' });
    this.lines = createInterface({ input: this.process.stdout })[Symbol.asyncIterator]();
    this.queue = Promise.resolve();
    this.process.stdin.on('error', () => {}); // the process exited; `ask` reports it
  }

  ask(question) {
    const turn = this.queue.then(async () => {
      this.process.stdin.write(`${JSON.stringify(question)}\n`);
      const { value, done } = await this.lines.next();
      if (done) throw new Error(`${this.name} exited without a response\n${this.tail()}`);
      return JSON.parse(value);
    });
    this.queue = turn.catch(() => {});
    return turn;
  }
}
