/** A dead letter and how it becomes a record that the broker takes, however large the original was. */
import type { RecordHeaders } from './decode/decoder';

export interface DeadLetter {
  reason: string;
  detail: string;
  topic: string;
  partition: number;
  offset: number;
  decoder: string;
  seenAtMs: number;
  key: Buffer | null;
  value: Buffer | null;
  headers: RecordHeaders;
}

export interface LetterRecord {
  key: Buffer | null;
  value: Buffer | null;
  headers: Record<string, Buffer | string | (Buffer | string)[]>;
}

/** Key, headers and value together: below what a broker takes by default (1 MiB a batch), with room for the framing. */
const largestLetterBytes = 900_000;
/** kafkajs takes time in the square of a key's length to choose its partition: a mebibyte would stop the process. */
const largestKeyBytes = 4_096;
/** At least what the lengths before a header's name and value take. */
const headerFramingBytes = 10;

/** The letter with as much of the original as fits: a long key is cut, then its headers go, then the value's end. */
export function letterRecord(letter: DeadLetter): LetterRecord {
  const reasons = reasonHeaders(letter);
  const originals = presentHeaders(letter.headers);
  const key = letter.key ?? Buffer.alloc(0);
  const value = letter.value ?? Buffer.alloc(0);
  const room = largestLetterBytes - sizeOf(reasons);
  const keyBytes = Math.min(key.length, largestKeyBytes);
  const valueBytes = Math.min(value.length, room - keyBytes);
  const fits = keyBytes + value.length + sizeOf(originals) <= room;
  const headers: LetterRecord['headers'] = fits ? { ...originals, ...reasons } : { ...reasons };
  const dropped = fits ? 0 : Object.keys(originals).length;
  if (dropped > 0) headers['understudy-dropped-headers'] = String(dropped);
  if (keyBytes < key.length) headers['understudy-key-truncated-from-bytes'] = String(key.length);
  if (valueBytes < value.length) headers['understudy-truncated-from-bytes'] = String(value.length);
  return {
    key: letter.key && key.subarray(0, keyBytes),
    value: letter.value && value.subarray(0, valueBytes),
    headers,
  };
}

/** Says what was refused, why and where it lies, and holds nothing of it: for an original that cannot be written at all. */
export function bareLetterRecord(letter: DeadLetter): LetterRecord {
  return { key: null, value: null, headers: { ...reasonHeaders(letter), 'understudy-original-left-out': 'true' } };
}

function reasonHeaders(letter: DeadLetter): Record<string, string> {
  return {
    'understudy-reason': letter.reason,
    'understudy-detail': letter.detail,
    'understudy-topic': letter.topic,
    'understudy-partition': String(letter.partition),
    'understudy-offset': String(letter.offset),
    'understudy-decoder': letter.decoder,
    'understudy-seen-at': new Date(letter.seenAtMs).toISOString(),
  };
}

/** A header may come without a value, which kafkajs reads (as null, also within a list) and cannot write. */
function presentHeaders(headers: RecordHeaders): LetterRecord['headers'] {
  const present = (value: Buffer | string | null | undefined) => value ?? '';
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name, Array.isArray(value) ? value.map(present) : present(value)]),
  );
}

function sizeOf(headers: LetterRecord['headers']): number {
  let bytes = 0;
  for (const [name, value] of Object.entries(headers)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      bytes += headerFramingBytes + Buffer.byteLength(name) + Buffer.byteLength(one);
    }
  }
  return bytes;
}
