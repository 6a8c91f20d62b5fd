/** Runs the ticks of one assignment in order of event time: samples in, scores published, risk events handed on. */
import { CellScoring, type CellScoringOptions } from './cell-scoring';
import type { Sample } from './contracts';
import type { Counters } from './counters';
import type { Insistence } from './insist';
import type { Partitions } from './partitions';
import type { ScorePublisher } from './publisher';
import type { RiskOutbox } from './risk-outbox';
import type { SideChannel } from './side-channel';
import { StepBuffer } from './step-buffer';
import type { RestoredPartition, WindowSnapshots } from './window-snapshots';
import { WordReader } from './words';

export interface TickingOptions {
  scoring: CellScoringOptions;
  partitions: Partitions;
  publisher: ScorePublisher;
  outbox: RiskOutbox;
  insistence: Insistence;
  sideChannel: SideChannel;
  counters: Counters;
  /** Told at each tick: the loop is alive. */
  onTurn: () => void;
  /** False once a newer assignment has come: work of this one is then dropped. */
  isCurrent: () => boolean;
}

/** After so long the source gets its turn: a consumer that does not beat for 6 s is put out of its group. */
const mostMsAtOnce = 1_500;

export class Ticking {
  /** Event time of the last tick that is done; -Infinity before the first. */
  doneMs = -Infinity;
  private nextMs: number | null = null;
  /** The tick after that of the oldest windows that were restored. */
  private resumeMs = Infinity;
  private readonly scoring: CellScoring;
  private readonly buffer: StepBuffer;
  private readonly stepMs: number;

  /** `restored`: windows to go on from. Throws RangeError if they are not what they should be. */
  constructor(
    private readonly options: TickingOptions,
    restored: Iterable<RestoredPartition> = [],
  ) {
    this.stepMs = options.scoring.stepMs;
    this.scoring = new CellScoring(options.scoring);
    this.buffer = new StepBuffer(this.stepMs);
    for (const { head, words } of restored) {
      this.resumeMs = Math.min(this.resumeMs, head.tickMs + this.stepMs);
      for (const some of words) {
        const reader = new WordReader(some);
        while (!reader.isAtEnd) this.scoring.restore(reader);
      }
    }
  }

  /** Keeps the windows as they are after the last tick, if it is time to. */
  snapshot(snapshots: WindowSnapshots, rememberPast: boolean): void {
    const { partitions, isCurrent } = this.options;
    if (this.doneMs !== -Infinity) snapshots.take(this.scoring, partitions, this.doneMs, rememberPast, isCurrent);
  }

  get cellCount(): number {
    return this.scoring.cellCount;
  }

  /** Samples that wait for their tick. */
  get heldSamples(): number {
    return this.buffer.size;
  }

  /** Samples of one record, which came by this partition with this time of its own. Answers the tick they need. */
  take(samples: readonly Sample[], partitionKey: string, recordMs: number): number | undefined {
    const { scoring, buffer, stepMs } = this;
    const overMs = this.nextMs === null ? -Infinity : this.nextMs - stepMs;
    let newestMs = -Infinity;
    let cell: string | undefined;
    let late = 0;
    for (const sample of samples) {
      if (sample.atMs > newestMs) newestMs = sample.atMs;
      // A record mostly speaks of one cell.
      if (sample.cell !== cell) {
        cell = sample.cell;
        scoring.met(cell, partitionKey, recordMs - sample.atMs);
      }
      if (sample.atMs <= overMs) {
        // Its tick is over; as the newest known value it still counts at the next one.
        late += 1;
        scoring.observe(sample);
      } else buffer.add(sample);
    }
    if (late > 0) this.options.counters.add('samples.late', late);
    return newestMs === -Infinity ? undefined : Math.ceil(newestMs / stepMs) * stepMs;
  }

  /** Runs the ticks up to the horizon, which have all their samples; with a long backlog, as many as a call may take. */
  async runDue(horizonMs: number): Promise<void> {
    this.nextMs ??= this.firstTick(horizonMs);
    const until = performance.now() + mostMsAtOnce;
    while (this.nextMs !== null && this.nextMs <= horizonMs && this.options.isCurrent()) {
      if (performance.now() > until) return;
      const tickMs = this.nextMs;
      this.options.onTurn();
      if (!(await this.run(tickMs))) return;
      this.nextMs = tickMs + this.stepMs;
    }
  }

  /** The first tick is that of the oldest sample, once nothing older can come, or the next one of restored windows. */
  private firstTick(horizonMs: number): number | null {
    const first = Math.min(this.buffer.firstTickMs() ?? Infinity, this.resumeMs);
    return first <= horizonMs ? first : null;
  }

  /** False if the tick was given up because the assignment changed or the engine stops. */
  private async run(tickMs: number): Promise<boolean> {
    const { partitions, publisher, outbox, insistence, sideChannel, counters, isCurrent } = this.options;
    this.buffer.release(tickMs, (sample) => this.scoring.observe(sample));
    const scored = await this.scoring.tick(tickMs);
    if (!isCurrent()) return false;
    const fresh = scored.filter((cell) => !partitions.hadCommitted(cell.partitions, tickMs));
    if (fresh.length > 0) {
      const scores = fresh.map(({ score }) => score);
      if (!(await insistence.on('scores', isCurrent, () => publisher.scores(scores)))) return false;
      counters.add('scores', scores.length);
      sideChannel.shadowScores(fresh.flatMap(({ shadow }) => shadow ?? []));
    }
    for (const { event } of fresh) if (event) outbox.put(event, tickMs);
    sideChannel.modelHealth(tickMs);
    counters.add(fresh.length > 0 || scored.length === 0 ? 'ticks' : 'ticks.rebuilt');
    this.doneMs = tickMs;
    return true;
  }
}
