/** The scoring loop: telemetry in; per tick scores out, risk events out, then and only then the commit. A plain class. */
import type { Logger } from 'pino';
import type { Settings } from '../blueprints/settings';
import type { CellDirectory } from './cell-directory';
import type { ScoringModel } from './cell-scoring';
import { Counters } from './counters';
import type { DeadLetter } from './dead-letter';
import { DriftWatch, type DriftReport } from './drift';
import { featureNames, historySteps } from './feature-spec';
import { Insistence, messageOf, within } from './insist';
import { Intake } from './intake';
import { Partitions, type Partition } from './partitions';
import type { ScorePublisher } from './publisher';
import { RiskOutbox, type RiskNotifier } from './risk-outbox';
import { Shadow, type ShadowDivergence } from './shadow';
import { SideChannel } from './side-channel';
import {
  partitionKey,
  type PartitionId,
  type PartitionStart,
  type TelemetryReader,
  type TelemetryRecord,
  type TelemetrySource,
} from './telemetry-source';
import { Ticking, type TickingOptions } from './ticking';
import { WindowSnapshots, type RestoredPartition } from './window-snapshots';
import type { WindowStore } from './window-store';

export interface EngineOptions {
  settings: Pick<Settings, 'scoring'> & { kafka: Pick<Settings['kafka'], 'telemetry'> };
  source: TelemetrySource;
  model: ScoringModel;
  /** A challenger, scored beside the model and heard by nobody but the topic of shadow scores. */
  shadowModel?: ScoringModel | undefined;
  directory: CellDirectory;
  publisher: ScorePublisher;
  notifier: RiskNotifier;
  log: Logger;
  /** Where windows are kept for whoever reads on after us. Without it, windows are always rebuilt from the telemetry. */
  windows?: WindowStore | undefined;
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
  /** Whether the model still sees what it was trained on; null before enough was seen. */
  drift: DriftReport | null;
  shadow: ShadowDivergence | null;
  counters: Record<string, number>;
}

const commitEveryMs = 500;
const directoryEveryMs = 5_000;
/** How long a stop waits for what is at hand, and then for the source: together less than a process has to end in. */
const finishWithinMs = 2_000;
const leaveWithinMs = 1_500;

export class ScoringEngine implements TelemetryReader {
  readonly counters = new Counters();
  private readonly now: () => number;
  private readonly intake: Intake;
  private readonly outbox: RiskOutbox;
  private readonly partitions: Partitions;
  private readonly insistence: Insistence;
  private readonly drift: DriftWatch | undefined;
  private readonly shadow: Shadow | undefined;
  private readonly sideChannel: SideChannel;
  private readonly snapshots: WindowSnapshots | undefined;
  private ticking: Ticking;
  private lastCommitMs = 0;
  private lastDirectoryMs = 0;
  private turns = 0;
  private stopping = false;
  /** Grows with each assignment: work begun under an older one is dropped. */
  private generation = 0;
  private queue: Promise<void> = Promise.resolve();
  private timer: NodeJS.Timeout | undefined;
  private timerBusy = false;

  constructor(private readonly options: EngineOptions) {
    this.now = options.now ?? Date.now;
    const { scoring, kafka } = options.settings;
    const { model, shadowModel, directory, publisher, source, log } = options;
    const { counters, now } = this;
    this.intake = new Intake({ telemetry: kafka.telemetry, scoring, directory, counters, now });
    this.outbox = new RiskOutbox(options.notifier, counters, log);
    this.partitions = new Partitions(source, counters, log);
    this.insistence = new Insistence(counters, log, () => (this.turns += 1));
    const references = model.manifest.drift;
    this.drift = references && new DriftWatch({ references, featureNames });
    this.shadow = shadowModel && new Shadow(shadowModel, scoring.stepMs, counters);
    this.sideChannel = new SideChannel(publisher, counters, log, model.id, this.drift, this.shadow);
    const { stepMs, snapshotEverySteps: everySteps } = scoring;
    const historyMs = historySteps * stepMs;
    const { windows: store } = options;
    this.snapshots = store && new WindowSnapshots({ store, stepMs, everySteps, historyMs, counters, log, now });
    this.ticking = this.newTicking();
  }

  /** Begins to read. What fails from here on is retried, not thrown. */
  async start(): Promise<void> {
    await this.options.source.start(this);
    this.timer = setInterval(() => this.turn(), Math.max(20, this.options.settings.scoring.stepMs / 5));
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
    this.insistence.stop();
    this.snapshots?.stop();
    this.outbox.close();
    const left = Promise.all([this.options.source.stop(), this.queue]);
    if (!(await within(leaveWithinMs, left))) {
      this.options.log.warn('the telemetry source did not close in time; the group notices by its session timeout');
    }
  }

  progress(): EngineProgress {
    const { ticking } = this;
    return {
      turns: this.turns,
      lastTickMs: ticking.doneMs === -Infinity ? null : ticking.doneMs,
      cells: ticking.cellCount,
      heldSamples: ticking.heldSamples,
      trouble: this.options.source.trouble() ?? null,
      drift: this.drift?.last ?? null,
      shadow: this.shadow?.divergence() ?? null,
      counters: this.counters.all(),
    };
  }

  /** From the source: everything begins anew, from windows that were kept, or else that reach back far enough. */
  assigned(starts: PartitionStart[]): Promise<PartitionStart[]> {
    // Not queued behind work of the old assignment's: that work sees the new generation and ends.
    this.generation += 1;
    const { generation } = this;
    return this.exclusive(async () => {
      let restored = (await this.snapshots?.restore(starts)) ?? new Map<string, RestoredPartition>();
      if (generation !== this.generation) return [];
      try {
        this.ticking = this.newTicking(restored.values());
      } catch (error) {
        const reason = messageOf(error);
        this.options.log.error(
          { reason },
          `kept windows cannot be used (${reason}); the telemetry is read again instead`,
        );
        this.counters.add('windows.refused', restored.size);
        restored = new Map();
        this.ticking = this.newTicking();
      }
      this.counters.add('windows.restored', this.ticking.cellCount);
      const from = starts.map((start) => ({
        ...start,
        from: restored.get(partitionKey(start))?.head.from ?? start.from,
      }));
      this.partitions.assign(from, restored);
      this.intake.reset();
      return from.filter((start) => restored.has(partitionKey(start)));
    });
  }

  /** From the source: decodes, then runs the ticks that have become due. */
  records(from: PartitionId, records: readonly TelemetryRecord[], end: number): Promise<void> {
    const { generation } = this;
    return this.exclusive(async () => {
      const partition = this.partitions.find(from);
      if (!partition || generation !== this.generation) return;
      partition.end = Math.max(end, partition.end);
      const letters: DeadLetter[] = [];
      for (const record of records) await this.read(partition, record, letters);
      if (letters.length > 0) {
        const { publisher } = this.options;
        const isWanted = () => generation === this.generation;
        // Given up: these records are not dealt with and must not be committed.
        if (!(await this.insistence.on('dead letters', isWanted, () => publisher.deadLetters(letters)))) return;
      }
      await this.advance(generation, partition);
    });
  }

  /** From the source: there is nothing to be read up to `next`. */
  passed(from: PartitionId, first: number, next: number, end: number): Promise<void> {
    return this.exclusive(async () => {
      const partition = this.partitions.find(from);
      // Told of an older assignment, or from ahead of a seek: between here and there are records still to come.
      if (!partition || first > partition.next || next <= partition.next) return;
      partition.next = next;
      partition.end = Math.max(end, partition.end);
    });
  }

  private async read(partition: Partition, record: TelemetryRecord, letters: DeadLetter[]): Promise<void> {
    // A record below what was read already came twice (seek and fetch crossed): once is enough.
    if (record.offset < partition.next) return;
    this.partitions.read(partition, record.offset, record.timestampMs);
    const { committed } = partition.start;
    const isReplay = committed !== null && record.offset < committed;
    const { samples: all, letter } = await this.intake.read(partition.id, record, isReplay);
    if (letter) letters.push(letter);
    const { restored } = partition;
    // What is in the restored windows already must not be taken twice.
    const samples = restored && record.offset < restored.read ? all.filter((s) => s.atMs > restored.tickMs) : all;
    let newestMs = -Infinity;
    for (const { atMs } of all) if (atMs > newestMs) newestMs = atMs;
    // The record's time moves an idle partition on; a sample ahead of its record or of this clock moves nothing.
    const readTo = Math.min(newestMs === -Infinity ? record.timestampMs : newestMs, record.timestampMs, this.now());
    if (readTo > partition.readToMs) partition.readToMs = readTo;
    const neededTickMs = this.ticking.take(samples, partition.key, record.timestampMs);
    if (!isReplay) partition.ledger.read(record.offset, neededTickMs);
  }

  /** Runs what has become due, lets partitions wait or go on, and commits. */
  private async advance(generation: number, delivering?: Partition): Promise<void> {
    const { latenessMs } = this.options.settings.scoring;
    await this.ticking.runDue(this.partitions.readToMs(this.now()) - latenessMs);
    if (generation !== this.generation) return;
    this.partitions.keepBounded(this.ticking.heldSamples, this.options.maxHeldSamples ?? 500_000, delivering);
    await this.commit(false);
    if (this.snapshots && generation === this.generation) this.ticking.snapshot(this.snapshots, this.intake.remembers);
  }

  private async commit(now: boolean): Promise<void> {
    const nowMs = this.now();
    if (!now && nowMs - this.lastCommitMs < commitEveryMs) return;
    this.lastCommitMs = nowMs;
    // Never past a signal that has not been accepted.
    const { stepMs } = this.options.settings.scoring;
    await this.partitions.commit(Math.min(this.ticking.doneMs, this.outbox.oldestWaitingTickMs() - stepMs));
  }

  /** Ticks must come also when no telemetry does: silence has to become `unknown`. */
  private turn(): void {
    if (this.timerBusy || this.stopping) return;
    this.timerBusy = true;
    const { generation } = this;
    this.exclusive(async () => {
      this.turns += 1;
      await this.refreshDirectory();
      await this.advance(generation);
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

  private newTicking(restored?: Iterable<RestoredPartition>): Ticking {
    const { counters, drift, shadow, generation, outbox, partitions, insistence, sideChannel } = this;
    const { model, directory, settings, publisher } = this.options;
    const { stepMs, riskChangedEveryMs } = settings.scoring;
    const ticking: TickingOptions = {
      scoring: { model, directory, stepMs, riskChangedEveryMs, counters, drift, shadow },
      partitions,
      publisher,
      outbox,
      insistence,
      sideChannel,
      counters,
      onTurn: () => (this.turns += 1),
      isCurrent: () => generation === this.generation,
    };
    return new Ticking(ticking, restored);
  }

  /** One thing at a time, in order of call; the caller hears of its own failure only. */
  private exclusive<T>(work: () => Promise<T>): Promise<T> {
    const result = this.queue.then(work);
    this.queue = result.then(
      () => undefined,
      () => undefined,
    );
    return result;
  }
}
