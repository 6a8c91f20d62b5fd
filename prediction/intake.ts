/** From records to samples worth scoring: decodes, checks size, time and cell, and dead-letters what cannot be used. */
import type { Settings } from '../blueprints/settings';
import type { CellDirectory } from './cell-directory';
import type { Sample } from './contracts';
import type { Counters } from './counters';
import type { DeadLetter } from './dead-letter';
import { Assembler } from './decode/assembler';
import { createDecoders, type DecoderName } from './decode/detect';
import { headerText, problem, type DecodeProblem, type DecodeReason, type Decoder } from './decode/decoder';
import { SeriesStore } from './decode/series';
import { refusedBatchHeader } from './compression';
import type { PartitionId, TelemetryRecord } from './telemetry-source';

type IntakeReason = DecodeReason | 'oversized' | 'bad-compression' | 'stale' | 'future' | 'unknown-cell';

export interface IntakeOptions {
  telemetry: Settings['kafka']['telemetry'];
  scoring: Pick<Settings['scoring'], 'maxSampleAgeS' | 'maxFutureS' | 'maxRecordBytes'>;
  directory: CellDirectory;
  counters: Counters;
  now: () => number;
}

export interface ReadRecord {
  samples: Sample[];
  /** Undefined if the whole record could be used. */
  letter: DeadLetter | undefined;
}

const refreshAtMostEveryMs = 1_000;
const lettersPerSecond = 50;
const letterBurst = 200;

export class Intake {
  private decoders: ReadonlyMap<string, { name: DecoderName; decode: Decoder }>;
  private lastRefreshMs = -Infinity;
  /** The present decoders' memory. */
  private assembler: Assembler | undefined;
  private letterBudget = letterBurst;
  private letterBudgetAtMs: number;

  constructor(private readonly options: IntakeOptions) {
    this.decoders = this.newDecoders();
    this.letterBudgetAtMs = options.now();
  }

  /** Cumulative series are read anew after a reassignment, as the windows are. */
  reset(): void {
    this.decoders = this.newDecoders();
  }

  /** Whether the decoders hold something of the records before, by which they read the next ones. */
  get remembers(): boolean {
    return this.assembler?.remembers ?? false;
  }

  /** Per topic, as its settings say; all share one bounded memory. */
  private newDecoders() {
    const { telemetry, directory } = this.options;
    const series = new SeriesStore();
    const assembler = (this.assembler = new Assembler(series));
    const locate = (name: string) => directory.locate?.(name);
    return new Map(
      telemetry.map(({ topic, decoder: name, ...reading }) => {
        const decode = createDecoders({ ...reading, series, assembler, locate })[name];
        return [topic, { name, decode }];
      }),
    );
  }

  /** `isReplay`: the record was dealt with before; it is read for its samples and complains no more. */
  async read(from: PartitionId, record: TelemetryRecord, isReplay: boolean): Promise<ReadRecord> {
    const { counters, scoring, now } = this.options;
    const decoder = this.decoders.get(from.topic);
    counters.add('records');
    const value = record.value ?? Buffer.alloc(0);
    const problems: DecodeProblem[] = [];
    let samples: Sample[] = [];
    const object = (reason: IntakeReason, detail: string) => {
      problems.push({ ...problem('bad-value', detail), reason: reason as DecodeReason });
    };
    const refused = record.value === null ? headerText(record.headers, refusedBatchHeader) : undefined;
    if (refused !== undefined) {
      object('bad-compression', refused);
    } else if (!decoder) {
      object('unknown-format', `no decoder is configured for topic ${from.topic}`);
    } else if (value.length > scoring.maxRecordBytes) {
      object('oversized', `${value.length} bytes, at most ${scoring.maxRecordBytes} are read`);
    } else {
      const decoded = decoder.decode(value, record);
      problems.push(...decoded.problems);
      for (const [reason, count] of Object.entries(decoded.ignored)) counters.add(`ignored.${reason}`, count);
      samples = await this.usable(decoded.samples, record, object);
    }
    counters.add('samples', samples.length);
    const first = problems[0];
    if (!first || isReplay) return { samples, letter: undefined };
    for (const { reason } of problems) counters.add(`problem.${reason}`);
    if (!this.mayWriteLetter()) {
      counters.add('dead-letters.suppressed');
      return { samples, letter: undefined };
    }
    counters.add('dead-letters');
    const { key, headers, offset } = record;
    const detail = problems.length > 1 ? `${first.detail} (and ${problems.length - 1} more)` : first.detail;
    const place = { ...from, offset, decoder: decoder?.name ?? 'none', seenAtMs: now(), key, headers };
    return { samples, letter: { reason: first.reason, detail, ...place, value: record.value } };
  }

  private async usable(
    samples: Sample[],
    record: TelemetryRecord,
    object: (reason: IntakeReason, detail: string) => void,
  ): Promise<Sample[]> {
    const { scoring, counters, directory, now } = this.options;
    // Age is counted from the record's time, not from ours: a backlog of our own must not make good samples stale.
    const writtenMs = Math.min(record.timestampMs, now());
    const oldest = writtenMs - scoring.maxSampleAgeS * 1000;
    const newest = now() + scoring.maxFutureS * 1000;
    const unknown = new Set<string>();
    let stale = 0;
    let future = 0;
    const usable: Sample[] = [];
    // A record mostly speaks of one cell: it is looked up once.
    let knownCell: string | undefined;
    for (const sample of samples) {
      if (sample.atMs < oldest) stale += 1;
      else if (sample.atMs > newest) future += 1;
      else if (sample.cell === knownCell) usable.push(sample);
      else if (unknown.has(sample.cell)) continue;
      else if (directory.find(sample.cell) || (await this.findAfterRefresh(sample.cell))) {
        knownCell = sample.cell;
        usable.push(sample);
      } else unknown.add(sample.cell);
    }
    if (stale > 0) {
      counters.add('samples.stale', stale);
      object('stale', `${stale} samples are more than ${scoring.maxSampleAgeS} s older than their record`);
    }
    if (future > 0) {
      counters.add('samples.future', future);
      object('future', `${future} samples are more than ${scoring.maxFutureS} s ahead of this clock`);
    }
    if (unknown.size > 0) object('unknown-cell', `no such cell: ${[...unknown].slice(0, 5).join(', ')}`);
    return usable;
  }

  /** A cell that has just been made may be newer than the directory; hostile names may not cost a query each. */
  private async findAfterRefresh(cell: string): Promise<boolean> {
    const { directory, now } = this.options;
    if (now() - this.lastRefreshMs < refreshAtMostEveryMs) return false;
    this.lastRefreshMs = now();
    try {
      await directory.refresh();
    } catch {
      // The directory stays as it was; the periodic refresh reports what is wrong.
      return false;
    }
    return directory.find(cell) !== undefined;
  }

  private mayWriteLetter(): boolean {
    const nowMs = this.options.now();
    const earned = ((nowMs - this.letterBudgetAtMs) * lettersPerSecond) / 1000;
    this.letterBudget = Math.min(letterBurst, this.letterBudget + Math.max(0, earned));
    this.letterBudgetAtMs = nowMs;
    if (this.letterBudget < 1) return false;
    this.letterBudget -= 1;
    return true;
  }
}
