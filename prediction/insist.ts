/** Keeps at something that must happen, until it does or nobody wants it any more. */
import type { Logger } from 'pino';
import type { Counters } from './counters';

const firstPauseMs = 100;
const longestPauseMs = 2_000;

export class Insistence {
  private stopping = false;
  /** Ends the insisting that is under way, if any. */
  private halt: () => void = () => undefined;

  constructor(
    private readonly counters: Counters,
    private readonly log: Logger,
    /** Told at each try: whoever insists is alive. */
    private readonly onTry: () => void,
  ) {}

  /** From here on nothing is insisted on. */
  stop(): void {
    this.stopping = true;
    this.halt();
  }

  /** Tries until it succeeds. False if `isWanted` says no, or all stops, meanwhile. */
  async on(what: string, isWanted: () => boolean, send: () => Promise<void>): Promise<boolean> {
    if (this.stopping) return false;
    // A client's own retries may outlast the time there is to stop in.
    const halted = new Promise<void>((resolve) => (this.halt = resolve));
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
      try {
        return await Promise.race([send().then(() => true), halted.then(() => false)]);
      } catch (error) {
        this.counters.add('publish.failed');
        this.log.warn({ reason: messageOf(error) }, `${what} could not be published: ${messageOf(error)}`);
      }
      if (!isWanted() || this.stopping) return false;
      this.onTry();
      await within(pauseMs, halted);
    }
  }
}

/** Whether the work ends in time. What is left of it then goes on unheeded. */
export async function within(ms: number, work: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => (timer = setTimeout(() => resolve(false), ms)));
  try {
    return await Promise.race([work.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
