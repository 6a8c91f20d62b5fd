/** Long work that does not wait for anything, in slices: between two of them the rest of this process has its turn. */
import { setImmediate } from 'node:timers/promises';

/** Longest time in which nothing else of this process runs, heartbeats of other failovers among it, in milliseconds. */
const sliceMs = 5;

/** To be awaited at every step of the work: it waits only at the end of a slice. */
export function inSlices(): () => Promise<void> {
  let since = performance.now();
  return async () => {
    if (performance.now() - since < sliceMs) return;
    await setImmediate();
    since = performance.now();
  };
}
