/** A bound on a wait for something that cannot be cancelled. */

/** The time was up; whether it happens after all is not known. */
export class OverdueError extends Error {
  override readonly name = 'OverdueError';
}

/** Rejects with an OverdueError of `what` once the time is up; the promise itself goes on unheeded. */
export async function within<T>(promise: Promise<T>, withinMs: number, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new OverdueError(`${what} within ${withinMs / 1000} s`)), withinMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
