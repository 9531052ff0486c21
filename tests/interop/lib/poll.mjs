// Polling with a timeout.
import { setTimeout as sleep } from 'node:timers/promises';

/** Calls `attempt` until it returns a truthy value. Errors count as "not yet". */
export async function until(what, attempt, { seconds = 60, every = 50 } = {}) {
  const end = Date.now() + seconds * 1000;
  let last;
  for (;;) {
    try {
      const result = await attempt();
      if (result) return result;
      last = undefined;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) {
      throw new Error(`waited ${seconds} s for ${what}`, { cause: last });
    }
    await sleep(every);
  }
}
