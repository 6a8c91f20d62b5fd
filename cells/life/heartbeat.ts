/** How work on a cell tells that it goes on, to whoever would give it up otherwise. */

/** Called with a sentence whenever something has gone on; throws or aborts to stop (a heartbeat of an activity). */
export type Heartbeat = (text: string) => void;

/** Heartbeats while something runs that cannot tell of its progress, but ends in bounded time. */
export async function beating<T>(heartbeat: Heartbeat, text: string, work: Promise<T>): Promise<T> {
  const timer = setInterval(() => heartbeat(text), 1_000);
  try {
    return await work;
  } finally {
    clearInterval(timer);
  }
}
