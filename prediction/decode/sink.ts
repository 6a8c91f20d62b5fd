/** Where every decoder puts what it read: checks each value against its metric's range and bounds the complaints. */
import type { Sample } from '../contracts';
import { metrics, type MetricName } from '../metrics';
import {
  isTime,
  problem,
  type DecodeProblem,
  type DecodeReason,
  type DecodeResult,
  type Ignored,
  type IgnoredReason,
} from './decoder';

export interface Identity {
  cell: string;
  instance: string;
}

/** A record may be wrong in thousands of places; this many are told, the rest are counted in the last one. */
const problemsTold = 20;
/** Beyond this nothing a machine has is counted: not bytes, not seconds, not requests. */
const largestValue = 1e18;
/** Shares of a whole: rounding and windows that do not quite match carry them a little above 1, a wrong unit far above. */
const ratioSlack = 2;

/** Metrics whose value is a share of a whole. */
const shares: ReadonlySet<MetricName> = new Set([
  ...(Object.keys(metrics) as MetricName[]).filter((name) => metrics[name].unit === '1' && metrics[name].limit === 1),
  'cache.hit_ratio',
]);
/** What may be below zero: a certificate that has run out. */
const signed: ReadonlySet<MetricName> = new Set(['certificate.left_s']);

/** The value as it is taken, or why it is not. */
export function admit(metric: MetricName, value: number): number | string {
  // What nearly every value is: between nothing and a whole.
  if (value >= 0 && value <= 1) return value;
  if (!Number.isFinite(value)) return 'not a finite number';
  if (Math.abs(value) > largestValue) return `${value} is larger than anything that is measured`;
  if (value < 0 && !signed.has(metric)) return value > -1e-9 ? 0 : `${value} is below 0`;
  if (value > 1 && shares.has(metric)) {
    return value <= ratioSlack ? 1 : `${value} is no share of a whole (0 to 1); is it in per cent?`;
  }
  return value;
}

export class SampleSink {
  private readonly samples: Sample[] = [];
  private readonly problems: DecodeProblem[] = [];
  private readonly ignored: Ignored = {};
  private untold = 0;

  /** `source` is the producer's name of the metric, or where it stands. */
  emit({ cell, instance }: Identity, atMs: number, metric: MetricName, value: number, source: string): void {
    if (!isTime(atMs)) return this.object('bad-time', `${source}: ${atMs} ms since 1970 is no time of a measurement`);
    const admitted = admit(metric, value);
    if (typeof admitted === 'number') this.samples.push({ cell, instance, atMs, metric, value: admitted });
    else this.object(Number.isFinite(value) ? 'out-of-range' : 'bad-value', `${source}: ${metric}: ${admitted}`);
  }

  object(reason: DecodeReason, detail: string): void {
    if (this.problems.length < problemsTold) this.problems.push(problem(reason, detail));
    else this.untold += 1;
  }

  ignore(reason: IgnoredReason, count = 1): void {
    this.ignored[reason] = (this.ignored[reason] ?? 0) + count;
  }

  result(): DecodeResult {
    const { samples, problems, ignored } = this;
    const last = problems[problems.length - 1];
    if (last && this.untold > 0) {
      problems[problems.length - 1] = problem(last.reason, `(and ${this.untold} more) ${last.detail}`);
    }
    return { samples, problems, ignored };
  }
}
