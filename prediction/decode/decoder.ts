/** The one interface of every telemetry decoder: bytes of a record in, samples and typed problems out. */
import type { Sample } from '../contracts';

export type DecodeReason =
  | 'unknown-format'
  | 'not-json'
  | 'not-protobuf'
  | 'wrong-schema'
  | 'empty'
  | 'no-cell'
  | 'no-instance'
  | 'bad-time'
  | 'bad-value'
  | 'out-of-range'
  | 'bad-unit'
  | 'bad-temporality';

/** Why something readable was left out: it is counted, and nobody is bothered with it. */
export type IgnoredReason =
  /** No canonical metric is meant by it. */
  | 'unmapped'
  /** An OTLP summary: quantiles over an unknown time cannot be combined. */
  | 'summary'
  /** The producer says itself that there is no value yet. */
  | 'no-value'
  /** A duplicate, or older than what has been read of its series. */
  | 'not-newer'
  /** A host's figure where the process sends its own. */
  | 'secondary';

export type Ignored = Partial<Record<IgnoredReason, number>>;

/** Something in the record that could not be understood. It is reported and dead-lettered, never guessed at. */
export interface DecodeProblem {
  reason: DecodeReason;
  /** What was wrong and where, in one line. */
  detail: string;
}

/** A record can be good in part: samples are what was understood, problems what was not. */
export interface DecodeResult {
  samples: Sample[];
  problems: DecodeProblem[];
  ignored: Ignored;
}

export type RecordHeaders = Record<string, Buffer | string | (Buffer | string)[] | undefined>;

/** What a record has beside its value. */
export interface RecordContext {
  key?: Buffer | null;
  headers?: RecordHeaders;
  /** The record's own time, for formats in which a measurement may come without one. */
  timestampMs?: number;
}

/** Never throws, whatever the bytes are. */
export type Decoder = (value: Buffer, record?: RecordContext) => DecodeResult;

export function problem(reason: DecodeReason, detail: string): DecodeProblem {
  return { reason, detail: detail.length > 300 ? `${detail.slice(0, 300)}…` : detail };
}

export function rejected(reason: DecodeReason, detail: string): DecodeResult {
  return { samples: [], problems: [problem(reason, detail)], ignored: {} };
}

/** At most this long may the names of a cell or an instance be; longer ones are hostile or broken. */
export const maxNameLength = 253;

/** Milliseconds since the epoch that a Date can say, and no clock that has never been set. */
export function isTime(ms: number): boolean {
  return ms > 0 && ms < 1e13;
}

/** The text of a header, the first if it came more than once. */
export function headerText(headers: RecordHeaders | undefined, name: string): string | undefined {
  const found = headers && Object.hasOwn(headers, name) ? headers[name] : undefined;
  const first = Array.isArray(found) ? found[0] : found;
  // kafkajs gives a header without a value as null, whatever its types say.
  return first === undefined || first === null ? undefined : first.toString();
}

export function isName(value: unknown): value is string {
  return typeof value === 'string' && value.length > 0 && value.length <= maxNameLength;
}

/** A decoder's last line of defence: turns an unforeseen exception into a problem. */
export function guarded(decode: Decoder, reason: DecodeReason): Decoder {
  return (value, record) => {
    try {
      return decode(value, record);
    } catch (error) {
      return rejected(reason, error instanceof Error ? error.message : String(error));
    }
  };
}
