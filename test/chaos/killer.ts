/** Kills a server of a bench with -9, again and again at random, and starts it again on its old data. */
import { setTimeout as pause } from 'node:timers/promises';
import type { StackPart } from '../../local/stack';
import type { Bench } from './bench';
import { seeded } from './seed';

const firstMs = 2000;
const betweenMs = 7000;
const awayAtMostMs = 1500;

export class Killer {
  kills = 0;
  private readonly over = new AbortController();
  private readonly running: Promise<void>;

  constructor(bench: Bench, part: StackPart, seed: number, atMost = 5) {
    this.running = this.run(bench, part, seeded(seed), atMost);
  }

  /** Resolves with the server running. */
  async stop(): Promise<void> {
    this.over.abort();
    await this.running;
  }

  private async run(bench: Bench, part: StackPart, random: () => number, atMost: number): Promise<void> {
    await this.pause(firstMs + random() * betweenMs);
    while (!this.over.signal.aborted && this.kills < atMost) {
      await bench.stack.process(part).kill('SIGKILL');
      this.kills += 1;
      await this.pause(random() * awayAtMostMs);
      await bench.stack.start(part);
      await this.pause(firstMs + random() * betweenMs);
    }
  }

  private async pause(ms: number): Promise<void> {
    await pause(ms, undefined, { signal: this.over.signal }).catch(() => undefined);
  }
}
