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
  | 'bad-temporality';

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
}

export type RecordHeaders = Record<string, Buffer | string | (Buffer | string)[] | undefined>;

/** Never throws, whatever the bytes are. */
export type Decoder = (value: Buffer, headers?: RecordHeaders) => DecodeResult;

export function problem(reason: DecodeReason, detail: string): DecodeProblem {
  return { reason, detail: detail.length > 300 ? `${detail.slice(0, 300)}…` : detail };
}

export function rejected(reason: DecodeReason, detail: string): DecodeResult {
  return { samples: [], problems: [problem(reason, detail)] };
}

/** At most this long may the names of a cell or an instance be; longer ones are hostile or broken. */
export const maxNameLength = 253;

export function isName(value: unknown): value is string {
  return typeof value === 'string' && value.length > 0 && value.length <= maxNameLength;
}

/** A decoder's last line of defence: turns an unforeseen exception into a problem. */
export function guarded(decode: Decoder, reason: DecodeReason): Decoder {
  return (value, headers) => {
    try {
      return decode(value, headers);
    } catch (error) {
      return rejected(reason, error instanceof Error ? error.message : String(error));
    }
  };
}
