/** Waiting on a condition, with a deadline and a reason when it passes. */
import { setTimeout as pause } from 'node:timers/promises';

export interface WaitOptions {
  /** Milliseconds. */
  withinMs: number;
  /** Milliseconds between two looks. @default 50 */
  everyMs?: number;
  /** What is waited for, for the error: "Kafka answers". */
  what: string;
  /** What is so instead, for the error: asked once the deadline has passed. */
  instead?: () => Promise<string> | string;
}

/**
 * Looks until the condition answers something other than false, null or undefined, and answers that. A look that throws
 * counts as "not yet"; its reason is in the error if the deadline passes.
 */
export async function waitUntil<T>(
  look: () => Promise<T | false | null | undefined> | T | false | null | undefined,
  { withinMs, everyMs = 50, what, instead }: WaitOptions,
): Promise<T> {
  const deadline = Date.now() + withinMs;
  let lastError: unknown;
  for (;;) {
    try {
      const seen = await look();
      if (seen !== false && seen !== null && seen !== undefined) return seen;
      lastError = undefined;
    } catch (error) {
      if (error instanceof GiveUp) throw error;
      lastError = error;
    }
    if (Date.now() >= deadline) {
      const reason = lastError instanceof Error ? ` (${lastError.message || lastError.name})` : '';
      const now = instead ? ` Instead: ${await told(instead)}` : '';
      throw new Error(`${what}: not so after ${withinMs / 1000} s${reason}.${now}`);
    }
    await pause(everyMs);
  }
}

async function told(instead: () => Promise<string> | string): Promise<string> {
  try {
    return await instead();
  } catch (error) {
    return `cannot be told (${(error as Error).message})`;
  }
}

/** Thrown by a look to end the wait at once: what is waited for cannot come any more. */
export class GiveUp extends Error {}
