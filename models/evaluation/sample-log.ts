/** Keeps the samples of one recorded cell in typed arrays: some 10 bytes each, where objects would take 100. */
import type { Sample } from '../../prediction/contracts';
import { metricNames, type MetricName } from '../../prediction/metrics';

const indexOf = new Map<MetricName, number>(metricNames.map((name, i) => [name, i]));

function grown<T extends Float64Array | Uint8Array | Uint16Array | Uint32Array>(array: T, length: number): T {
  if (length <= array.length) return array;
  const Kind = array.constructor as new (length: number) => T;
  const larger = new Kind(Math.max(length, array.length * 2));
  larger.set(array);
  return larger;
}

/** Samples of one instance at one time. */
export interface LoggedRecord {
  instance: number;
  atMs: number;
  /** Where its samples lie in `metricOf` and `valueOf`: from, inclusive, and to, exclusive. */
  from: number;
  to: number;
}

export class SampleLog {
  readonly instances: string[] = [];
  metricOf = new Uint8Array(64);
  valueOf = new Float64Array(64);
  private readonly instanceIndex = new Map<string, number>();
  private recordInstance = new Uint16Array(16);
  private recordMs = new Float64Array(16);
  private recordEnd = new Uint32Array(16);
  private records = 0;
  private samplesHeld = 0;
  private inOrder = true;
  private newestMs = -Infinity;

  constructor(readonly cell: string) {}

  get sampleCount(): number {
    return this.samplesHeld;
  }

  add({ instance, atMs, metric, value }: Sample): void {
    let index = this.instanceIndex.get(instance);
    if (index === undefined) {
      index = this.instances.length;
      if (index > 0xffff) throw new Error(`cell ${this.cell} has more than 65,536 instances; expected a few`);
      this.instances.push(instance);
      this.instanceIndex.set(instance, index);
    }
    const last = this.records - 1;
    if (last < 0 || this.recordInstance[last] !== index || this.recordMs[last] !== atMs) this.open(index, atMs);
    this.metricOf = grown(this.metricOf, this.samplesHeld + 1);
    this.valueOf = grown(this.valueOf, this.samplesHeld + 1);
    this.metricOf[this.samplesHeld] = indexOf.get(metric) as number;
    this.valueOf[this.samplesHeld] = value;
    this.samplesHeld += 1;
    this.recordEnd[this.records - 1] = this.samplesHeld;
  }

  private open(instance: number, atMs: number): void {
    const next = this.records + 1;
    this.recordInstance = grown(this.recordInstance, next);
    this.recordMs = grown(this.recordMs, next);
    this.recordEnd = grown(this.recordEnd, next);
    this.recordInstance[this.records] = instance;
    this.recordMs[this.records] = atMs;
    this.recordEnd[this.records] = this.samplesHeld;
    this.records = next;
    if (atMs < this.newestMs) this.inOrder = false;
    else this.newestMs = atMs;
  }

  /** All records in order of time; of one time, in order of arrival. The object is used again: copy what is kept. */
  *inTimeOrder(): Generator<LoggedRecord> {
    const order = this.inOrder ? undefined : this.sortedRecords();
    const record: LoggedRecord = { instance: 0, atMs: 0, from: 0, to: 0 };
    for (let i = 0; i < this.records; i++) {
      const at = order ? (order[i] as number) : i;
      record.instance = this.recordInstance[at] as number;
      record.atMs = this.recordMs[at] as number;
      record.from = at === 0 ? 0 : (this.recordEnd[at - 1] as number);
      record.to = this.recordEnd[at] as number;
      yield record;
    }
  }

  private sortedRecords(): Uint32Array {
    const order = Uint32Array.from({ length: this.records }, (_, i) => i);
    return order.sort((a, b) => (this.recordMs[a] as number) - (this.recordMs[b] as number) || a - b);
  }

  *samples(): Generator<Sample> {
    for (const { instance, atMs, from, to } of this.inTimeOrder()) {
      for (let i = from; i < to; i++) {
        yield {
          cell: this.cell,
          instance: this.instances[instance] as string,
          atMs,
          metric: metricNames[this.metricOf[i] as number] as MetricName,
          value: this.valueOf[i] as number,
        };
      }
    }
  }

  /**
   * Median time between two values of the same metric of one instance, in ms; NaN if none has two. Several producers
   * (the service and an agent beside it) may speak of one instance. Looks at the first 10,000 records.
   */
  medianGapMs(): number {
    const lastMs = new Map<number, number>();
    const gaps: number[] = [];
    let seen = 0;
    for (const { instance, atMs, from } of this.inTimeOrder()) {
      if (++seen > 10_000) break;
      const series = instance * metricNames.length + (this.metricOf[from] as number);
      const before = lastMs.get(series);
      if (before !== undefined && atMs > before) gaps.push(atMs - before);
      lastMs.set(series, atMs);
    }
    return gaps.length === 0 ? NaN : (gaps.sort((a, b) => a - b)[gaps.length >> 1] as number);
  }
}
