/** The scoring loop: telemetry in; per tick scores out, risk events out, then and only then the commit. A plain class. */
import type { Logger } from 'pino';
import type { Settings } from '../blueprints/settings';
import type { CellDirectory } from './cell-directory';
import { CellScoring, type ScoredCell, type ScoringModel } from './cell-scoring';
import { CommitLedger } from './commit-ledger';
import { Counters } from './counters';
import type { DeadLetter } from './dead-letter';
import { Intake } from './intake';
import type { ScorePublisher } from './publisher';
import { RiskOutbox, type RiskNotifier } from './risk-outbox';
import { StepBuffer } from './step-buffer';
import {
  partitionKey,
  type PartitionId,
  type PartitionStart,
  type Position,
  type TelemetryReader,
  type TelemetryRecord,
  type TelemetrySource,
} from './telemetry-source';

export interface EngineOptions {
  settings: Pick<Settings, 'scoring'> & { kafka: Pick<Settings['kafka'], 'telemetry'> };
  source: TelemetrySource;
  model: ScoringModel;
  directory: CellDirectory;
  publisher: ScorePublisher;
  notifier: RiskNotifier;
  log: Logger;
  /** Milliseconds since the epoch. @default Date.now */
  now?: () => number;
  /** Samples held for later ticks before partitions that are ahead are paused. @default 500,000 */
  maxHeldSamples?: number;
}

export interface EngineProgress {
  /** Grows while the loop turns, with or without telemetry: what a watchdog watches. */
  turns: number;
  /** Event time of the last tick; null before the first. */
  lastTickMs: number | null;
  cells: number;
  heldSamples: number;
  trouble: string | null;
  counters: Record<string, number>;
}

interface Partition {
  id: PartitionId;
  start: PartitionStart;
  ledger: CommitLedger;
  /** Next offset to be read. */
  next: number;
  /** End of the partition when last seen: behind it the partition is read up. */
  end: number;
  /** How far in event time the partition has been read. */
  readToMs: number;
  paused: boolean;
}

const commitEveryMs = 500;
const directoryEveryMs = 5_000;
/** How long a stop waits for what is at hand, and then for the source: together less than a process has to end in. */
const finishWithinMs = 2_000;
const leaveWithinMs = 1_500;

export class ScoringEngine implements TelemetryReader {
  readonly counters = new Counters();
  private readonly now: () => number;
  private readonly stepMs: number;
  private readonly intake: Intake;
  private readonly outbox: RiskOutbox;
  private partitions = new Map<string, Partition>();
  private scoring: CellScoring;
  private buffer: StepBuffer;
  private nextTickMs: number | null = null;
  private doneTickMs = -Infinity;
  private lastCommitMs = 0;
  private lastDirectoryMs = 0;
  private turns = 0;
  private stopping = false;
  /** Ends the insisting that is under way, if any. */
  private halt: () => void = () => undefined;
  /** Grows with each assignment: work begun under an older one is dropped. */
  private generation = 0;
  private queue: Promise<void> = Promise.resolve();
  private timer: NodeJS.Timeout | undefined;
  private timerBusy = false;

  constructor(private readonly options: EngineOptions) {
    this.now = options.now ?? Date.now;
    const { scoring, kafka } = options.settings;
    this.stepMs = scoring.stepMs;
    const { counters, now } = this;
    this.intake = new Intake({ telemetry: kafka.telemetry, scoring, directory: options.directory, counters, now });
    this.outbox = new RiskOutbox(options.notifier, this.counters, options.log);
    this.scoring = this.newScoring();
    this.buffer = new StepBuffer(this.stepMs);
  }

  /** Begins to read. What fails from here on is retried, not thrown. */
  async start(): Promise<void> {
    await this.options.source.start(this);
    this.timer = setInterval(() => this.turn(), Math.max(20, this.stepMs / 5));
  }

  /**
   * Ends the loop. `commit`: finish what is at hand, wait a moment for owed signals, commit and leave the group;
   * otherwise (somebody else may own the work by now) stop without a trace.
   */
  async stop({ commit }: { commit: boolean }): Promise<void> {
    clearInterval(this.timer);
    if (commit) {
      // With Kafka away what is at hand never ends; uncommitted, it comes again to the next reader.
      const isFinished = await within(finishWithinMs, this.queue);
      if (isFinished) {
        await this.outbox.drain(1_000);
        // In the queue, so that nothing is committed whose dead letter is on its way.
        const committed = this.exclusive(() => this.commit(true));
        await within(1_000, committed);
      }
    }
    this.stopping = true;
    this.generation += 1;
    this.halt();
    this.outbox.close();
    const left = Promise.all([this.options.source.stop(), this.queue]);
    if (!(await within(leaveWithinMs, left))) {
      this.options.log.warn('the telemetry source did not close in time; the group notices by its session timeout');
    }
  }

  progress(): EngineProgress {
    return {
      turns: this.turns,
      lastTickMs: this.doneTickMs === -Infinity ? null : this.doneTickMs,
      cells: this.scoring.cellCount,
      heldSamples: this.buffer.size,
      trouble: this.options.source.trouble() ?? null,
      counters: this.counters.all(),
    };
  }

  /** From the source: everything begins anew, from windows that reach back far enough. */
  assigned(starts: PartitionStart[]): Promise<void> {
    // Not queued behind work of the old assignment's: that work sees the new generation and ends.
    this.generation += 1;
    return this.exclusive(async () => {
      // The client keeps what was paused across assignments; this engine begins anew.
      for (const { id, paused } of this.partitions.values()) if (paused) this.options.source.resume(id);
      this.partitions = new Map(
        starts.map((start) => {
          const id = { topic: start.topic, partition: start.partition };
          const ledger = new CommitLedger(start.committed ?? 0);
          const partition = { id, start, ledger, next: start.from, end: start.end, readToMs: -Infinity, paused: false };
          return [partitionKey(id), partition];
        }),
      );
      this.intake.reset();
      this.scoring = this.newScoring();
      this.buffer = new StepBuffer(this.stepMs);
      this.nextTickMs = null;
      this.doneTickMs = -Infinity;
      for (const { from, committed } of starts) {
        if (committed !== null && committed < from) this.counters.add('records.skipped', from - committed);
      }
    });
  }

  /** From the source: decodes, then runs the ticks that have become due. */
  records(from: PartitionId, records: readonly TelemetryRecord[], end: number): Promise<void> {
    const { generation } = this;
    return this.exclusive(async () => {
      const partition = this.partitions.get(partitionKey(from));
      if (!partition || generation !== this.generation) return;
      partition.end = Math.max(end, partition.end);
      const letters: DeadLetter[] = [];
      for (const record of records) await this.read(partition, record, letters);
      if (letters.length > 0) {
        const { publisher } = this.options;
        // Given up: these records are not dealt with and must not be committed.
        if (!(await this.insist('dead letters', generation, () => publisher.deadLetters(letters)))) return;
      }
      await this.runDueTicks(generation);
      if (generation !== this.generation) return;
      this.keepBounded(partition);
      await this.commit(false);
    });
  }

  /** From the source: there is nothing to be read up to `next`. */
  passed(from: PartitionId, first: number, next: number, end: number): Promise<void> {
    return this.exclusive(async () => {
      const partition = this.partitions.get(partitionKey(from));
      // Told of an older assignment, or from ahead of a seek: between here and there are records still to come.
      if (!partition || first > partition.next || next <= partition.next) return;
      partition.next = next;
      partition.end = Math.max(end, partition.end);
    });
  }

  private async read(partition: Partition, record: TelemetryRecord, letters: DeadLetter[]): Promise<void> {
    // A record below what was read already came twice (seek and fetch crossed): once is enough.
    if (record.offset < partition.next) return;
    partition.next = record.offset + 1;
    const { committed } = partition.start;
    const isReplay = committed !== null && record.offset < committed;
    const { samples, letter } = await this.intake.read(partition.id, record, isReplay);
    if (letter) letters.push(letter);
    const newestMs = samples.reduce((newest, { atMs }) => Math.max(newest, atMs), -Infinity);
    const nowMs = this.now();
    // The record's time moves an idle partition on; a sample ahead of its record or of this clock moves nothing.
    const readTo = Math.min(newestMs === -Infinity ? record.timestampMs : newestMs, record.timestampMs, nowMs);
    if (readTo > partition.readToMs) partition.readToMs = readTo;
    const key = partitionKey(partition.id);
    for (const sample of samples) {
      this.scoring.met(sample.cell, key, record.timestampMs - sample.atMs);
      if (this.nextTickMs !== null && sample.atMs <= this.nextTickMs - this.stepMs) {
        // Its tick is over; as the newest known value it still counts at the next one.
        this.counters.add('samples.late');
        this.scoring.observe(sample);
      } else this.buffer.add(sample);
    }
    const neededMs = newestMs === -Infinity ? undefined : Math.ceil(newestMs / this.stepMs) * this.stepMs;
    if (!isReplay) partition.ledger.read(record.offset, neededMs);
  }

  /** Ticks up to here have all their samples: event time where there is a backlog, the clock where there is none. */
  private horizonMs(): number {
    const { latenessMs } = this.options.settings.scoring;
    let horizon = this.now() - latenessMs;
    for (const { next, end, readToMs } of this.partitions.values()) {
      if (next < end) horizon = Math.min(horizon, readToMs - latenessMs);
    }
    return horizon;
  }

  private async runDueTicks(generation: number): Promise<void> {
    const horizon = this.horizonMs();
    this.nextTickMs ??= this.firstTick(horizon);
    while (this.nextTickMs !== null && this.nextTickMs <= horizon && generation === this.generation) {
      const tickMs = this.nextTickMs;
      this.turns += 1;
      if (!(await this.runTick(tickMs, generation))) return;
      this.nextTickMs = tickMs + this.stepMs;
    }
  }

  /** The first tick is that of the oldest sample, once nothing older can come. */
  private firstTick(horizon: number): number | null {
    const first = this.buffer.firstTickMs();
    return first !== undefined && first <= horizon ? first : null;
  }

  /** False if the tick was given up because the assignment changed or the engine stops. */
  private async runTick(tickMs: number, generation: number): Promise<boolean> {
    this.buffer.release(tickMs, (sample) => this.scoring.observe(sample));
    const scored = await this.scoring.tick(tickMs);
    if (generation !== this.generation) return false;
    const fresh = scored.filter((cell) => !this.wasPublished(cell, tickMs));
    if (fresh.length > 0) {
      const scores = fresh.map(({ score }) => score);
      const published = await this.insist('scores', generation, () => this.options.publisher.scores(scores));
      if (!published) return false;
      this.counters.add('scores', scores.length);
    }
    for (const { event } of fresh) if (event) this.outbox.put(event, tickMs);
    this.counters.add(fresh.length > 0 || scored.length === 0 ? 'ticks' : 'ticks.rebuilt');
    this.doneTickMs = tickMs;
    return true;
  }

  /** Whether all the partitions a cell is known from had committed this tick before this assignment. */
  private wasPublished({ partitions }: ScoredCell, tickMs: number): boolean {
    for (const key of partitions) {
      const committed = this.partitions.get(key)?.start.committedTickMs ?? -Infinity;
      if (committed < tickMs) return false;
    }
    return partitions.size > 0;
  }

  private async commit(now: boolean): Promise<void> {
    const nowMs = this.now();
    if (!now && nowMs - this.lastCommitMs < commitEveryMs) return;
    this.lastCommitMs = nowMs;
    // Never past a signal that has not been accepted.
    const tickMs = Math.min(this.doneTickMs, this.outbox.oldestWaitingTickMs() - this.stepMs);
    const positions: Position[] = [];
    for (const { id, ledger, start } of this.partitions.values()) {
      const offset = ledger.advance(tickMs);
      const publishedMs = Math.max(tickMs, start.committedTickMs ?? -Infinity);
      if (offset !== undefined) positions.push({ ...id, offset, tickMs: publishedMs });
    }
    if (positions.length === 0) return;
    try {
      await this.options.source.commit(positions);
      for (const position of positions) this.partitions.get(partitionKey(position))?.ledger.committed(position.offset);
      this.counters.add('commits');
    } catch (error) {
      // Nothing is lost: the next commit tries again, or the next assignment reads these records again.
      this.counters.add('commits.failed');
      this.options.log.warn({ reason: messageOf(error) }, `offsets could not be committed: ${messageOf(error)}`);
    }
  }

  /**
   * Too many samples for later ticks: the partition that brings them waits for the others. Never the one they wait for:
   * its records alone move the ticks on, and with them what is held.
   */
  private keepBounded(delivering?: Partition): void {
    const most = this.options.maxHeldSamples ?? 500_000;
    const hindmost = this.hindmost();
    if (delivering && !delivering.paused && delivering !== hindmost && this.buffer.size > most) {
      delivering.paused = true;
      this.options.source.pause(delivering.id);
    }
    for (const partition of this.partitions.values()) {
      if (!partition.paused || (partition !== hindmost && this.buffer.size >= most / 2)) continue;
      partition.paused = false;
      this.options.source.resume(partition.id);
    }
  }

  /** The partition that holds the ticks back; undefined if all are read up, and ticks follow the clock. */
  private hindmost(): Partition | undefined {
    let hindmost: Partition | undefined;
    for (const partition of this.partitions.values()) {
      if (partition.next >= partition.end) continue;
      if (!hindmost || partition.readToMs < hindmost.readToMs) hindmost = partition;
    }
    return hindmost;
  }

  /** Ticks must come also when no telemetry does: silence has to become `unknown`. */
  private turn(): void {
    if (this.timerBusy || this.stopping) return;
    this.timerBusy = true;
    const { generation } = this;
    this.exclusive(async () => {
      this.turns += 1;
      await this.refreshDirectory();
      await this.runDueTicks(generation);
      if (generation !== this.generation) return;
      this.keepBounded();
      await this.commit(false);
    })
      .catch((error: unknown) => this.options.log.error({ reason: messageOf(error) }, 'the scoring loop failed a turn'))
      .finally(() => (this.timerBusy = false));
  }

  private async refreshDirectory(): Promise<void> {
    if (this.now() - this.lastDirectoryMs < directoryEveryMs) return;
    this.lastDirectoryMs = this.now();
    try {
      await this.options.directory.refresh();
    } catch (error) {
      const reason = messageOf(error);
      this.options.log.warn({ reason }, `the cells could not be read again (${reason}); those known before stay`);
    }
  }

  /** Tries until it succeeds. False if the assignment changed or the engine stops meanwhile. */
  private async insist(what: string, generation: number, send: () => Promise<void>): Promise<boolean> {
    if (this.stopping) return false;
    // A client's own retries may outlast the time there is to stop in.
    const halted = new Promise<void>((resolve) => (this.halt = resolve));
    for (let pauseMs = 100; ; pauseMs = Math.min(pauseMs * 2, 2_000)) {
      try {
        return await Promise.race([send().then(() => true), halted.then(() => false)]);
      } catch (error) {
        this.counters.add('publish.failed');
        this.options.log.warn({ reason: messageOf(error) }, `${what} could not be published: ${messageOf(error)}`);
      }
      if (generation !== this.generation || this.stopping) return false;
      this.turns += 1;
      await within(pauseMs, halted);
    }
  }

  private newScoring(): CellScoring {
    const { model, directory, settings } = this.options;
    const { riskChangedEveryMs } = settings.scoring;
    return new CellScoring({ model, directory, stepMs: this.stepMs, riskChangedEveryMs, counters: this.counters });
  }

  /** One thing at a time, in order of call; the caller hears of its own failure only. */
  private exclusive(work: () => Promise<void>): Promise<void> {
    const result = this.queue.then(work);
    this.queue = result.catch(() => undefined);
    return result;
  }
}

/** Whether the work ends in time. What is left of it then goes on unheeded. */
async function within(ms: number, work: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => (timer = setTimeout(() => resolve(false), ms)));
  try {
    return await Promise.race([work.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
