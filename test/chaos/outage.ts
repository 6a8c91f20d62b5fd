/** Takes a server of a bench away while failovers are under way: killed with -9 at random and started again on its old data, or stopped for a while. */
import { setTimeout as pause } from 'node:timers/promises';
import type { StackPart } from '../../local/stack';
import type { Bench } from './bench';
import { seeded } from './seed';

export interface Outage {
  part: StackPart;
  /** `stopped`: it stands still for 15 s, once, with every connection open. */
  how: 'killed' | 'stopped';
  seed: number;
}

const firstMs = 2000;
const betweenMs = 7000;
const awayAtMostMs = 1500;
const stoppedForMs = 15_000;
const killsAtMost = 5;

export class OutageUnderWay {
  /** How often the server was taken away. */
  times = 0;
  private readonly over = new AbortController();
  private readonly running: Promise<void>;

  constructor(
    private readonly bench: Bench,
    { part, how, seed }: Outage,
  ) {
    const random = seeded(seed);
    this.running = how === 'killed' ? this.killAgainAndAgain(part, random) : this.stopOnce(part, random);
  }

  /** Resolves with the server running. */
  async end(): Promise<void> {
    this.over.abort();
    await this.running;
  }

  private async killAgainAndAgain(part: StackPart, random: () => number): Promise<void> {
    await this.pause(firstMs + random() * betweenMs);
    while (!this.over.signal.aborted && this.times < killsAtMost) {
      await this.bench.stack.process(part).kill('SIGKILL');
      this.times += 1;
      await this.pause(random() * awayAtMostMs);
      await this.bench.stack.start(part);
      await this.pause(firstMs + random() * betweenMs);
    }
  }

  private async stopOnce(part: StackPart, random: () => number): Promise<void> {
    await this.pause(firstMs + random() * betweenMs);
    if (this.over.signal.aborted) return;
    this.times += 1;
    this.bench.stack.process(part).signal('SIGSTOP');
    await this.pause(stoppedForMs);
    this.bench.stack.process(part).signal('SIGCONT');
  }

  private async pause(ms: number): Promise<void> {
    await pause(ms, undefined, { signal: this.over.signal }).catch(() => undefined);
  }
}
