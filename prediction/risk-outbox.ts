/** Risk events on their way to the workflows: the newest per cell, tried until accepted, in memory bounded by the cells. */
import type { Logger } from 'pino';
import type { RiskEvent } from './contracts';
import type { Counters } from './counters';

export interface RiskNotifier {
  /** Resolves once the event has been accepted durably. Throws if that is not known. */
  notify(event: RiskEvent): Promise<void>;
}

interface Waiting {
  event: RiskEvent;
  /** Tick of the oldest event of the cell that has not been accepted: nothing from here on may be committed. */
  sinceTickMs: number;
}

const firstPauseMs = 200;
const longestPauseMs = 5_000;

export class RiskOutbox {
  private readonly waiting = new Map<string, Waiting>();
  private readonly sending = new Map<string, Promise<void>>();
  private pauseMs = firstPauseMs;
  private closed = false;
  private readonly wake = new Set<() => void>();

  constructor(
    private readonly notifier: RiskNotifier,
    private readonly counters: Counters,
    private readonly log: Logger,
  ) {}

  /** A newer event of a cell takes the place of the one that waits. */
  put(event: RiskEvent, tickMs: number): void {
    const before = this.waiting.get(event.cell);
    this.waiting.set(event.cell, { event, sinceTickMs: before?.sinceTickMs ?? tickMs });
    this.counters.add('events');
    if (this.closed || this.sending.has(event.cell)) return;
    this.sending.set(event.cell, this.deliver(event.cell));
  }

  /** Ticks before this one have no event that waits; Infinity if none does. */
  oldestWaitingTickMs(): number {
    let oldest = Infinity;
    for (const { sinceTickMs } of this.waiting.values()) oldest = Math.min(oldest, sinceTickMs);
    return oldest;
  }

  /** Waits until everything has been accepted, at most `withinMs`. Answers whether it has. */
  async drain(withinMs: number): Promise<boolean> {
    const deadline = new Promise<void>((resolve) => setTimeout(resolve, withinMs).unref());
    await Promise.race([Promise.all(this.sending.values()), deadline]);
    return this.waiting.size === 0;
  }

  /** Gives up what waits: it was not committed, so the next reader comes to it again. */
  close(): void {
    this.closed = true;
    for (const wake of this.wake) wake();
  }

  private async deliver(cell: string): Promise<void> {
    for (;;) {
      const waiting = this.waiting.get(cell);
      if (!waiting || this.closed) {
        // In the same turn as the look above: an event put from here on finds no delivery and begins one.
        this.sending.delete(cell);
        return;
      }
      try {
        await this.notifier.notify(waiting.event);
      } catch (error) {
        this.counters.add('events.failed');
        const reason = error instanceof Error ? error.message : String(error);
        this.log.warn(
          { cell, level: waiting.event.level, reason },
          `risk event of cell ${cell} was not accepted (${reason}); it is tried again in ${this.pauseMs} ms`,
        );
        await this.pause();
        continue;
      }
      this.pauseMs = firstPauseMs;
      this.counters.add('events.accepted');
      const now = this.waiting.get(cell);
      if (now?.event === waiting.event) this.waiting.delete(cell);
      // A newer event came while this one was on its way: only that one is still owed.
      else if (now) now.sinceTickMs = Date.parse(now.event.at);
    }
  }

  private async pause(): Promise<void> {
    const pauseMs = this.pauseMs;
    this.pauseMs = Math.min(this.pauseMs * 2, longestPauseMs);
    await new Promise<void>((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.wake.delete(done);
        resolve();
      };
      const timer = setTimeout(done, pauseMs);
      this.wake.add(done);
      if (this.closed) done();
    });
  }
}
