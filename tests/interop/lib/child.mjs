// A process that a test starts: it never outlives the test, and what it printed is kept to be shown when a test fails.
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
    this.process.on('error', (error) => this.#note(`could not be started: ${error.message}\n`));
    this.process.on('exit', (code, signal) => {
      running.delete(this);
      if (!this.stopping) this.#note(`[${name} ended by itself: ${signal ?? code}]\n`);
    });
    // A driver answers on its standard output; everything else there is output like any other.
    if (stdin === 'ignore') this.process.stdout.on('data', (data) => this.#note(data));
    this.process.stderr.on('data', (data) => this.#note(data));
  }

  #note(data) {
    this.output += data;
  }

  get alive() {
    return this.process.pid !== undefined && this.process.exitCode === null && this.process.signalCode === null;
  }

  /** Waits until it has ended, which must be well. */
  async succeeds(seconds = 30) {
    await until(`${this.name} to end`, () => !this.alive, { seconds });
    if (this.process.exitCode !== 0) throw new Error(`${this.name} failed\n${this.tail()}`);
  }

  /** Waits until `url` answers with one of these statuses. */
  async answers(url, statuses = [200], seconds = 30) {
    await until(`${this.name} at ${url}\n${this.tail()}`, async () => {
      if (!this.alive) return true;
      return statuses.includes((await fetch(url)).status);
    }, { seconds }).catch((error) => {
      throw new Error(`${error.message.split('\n')[0]}\n${this.tail()}`, { cause: error.cause });
    });
    if (!this.alive) throw new Error(`${this.name} ended before it was ready\n${this.tail()}`);
  }

  async stop() {
    this.stopping = true;
    if (!this.alive) return;
    const ended = once(this.process, 'exit');
    this.process.kill('SIGTERM');
    const hard = setTimeout(() => this.process.kill('SIGKILL'), 5_000);
    await ended;
    clearTimeout(hard);
  }

  /** The last lines that it printed. */
  tail(lines = 40) {
    const all = this.output.trimEnd().split('\n');
    return all.slice(-lines).map((line) => `  ${this.name} | ${line}`).join('\n');
  }
}

/** A child that is asked one thing at a time: a line of JSON in, a line of JSON out. */
export class Driver extends Child {
  constructor(name, command, args, options = {}) {
    super(name, command, args, { ...options, stdin: 'pipe' });
    this.lines = createInterface({ input: this.process.stdout })[Symbol.asyncIterator]();
    this.queue = Promise.resolve();
    this.process.stdin.on('error', () => {}); // it ended: `ask` finds no answer and says so
  }

  ask(question) {
    const turn = this.queue.then(async () => {
      this.process.stdin.write(`${JSON.stringify(question)}\n`);
      const { value, done } = await this.lines.next();
      if (done) throw new Error(`${this.name} ended instead of answering\n${this.tail()}`);
      return JSON.parse(value);
    });
    this.queue = turn.catch(() => {});
    return turn;
  }
}
