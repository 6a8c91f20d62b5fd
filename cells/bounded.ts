/** Waits for work that may hang, no longer than it is given. */

/** What is left behind is not ended, only no longer waited for. */
export async function bounded<T>(withinMs: number, what: string, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} has not answered within ${withinMs / 1000} s`)), withinMs);
  });
  try {
    return await Promise.race([work, over]);
  } finally {
    clearTimeout(timer);
  }
}
