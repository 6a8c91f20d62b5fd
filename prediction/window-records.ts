/** The form of a window snapshot: records of a compacted topic, each with version, checksum and compressed cells. Pure. */
import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { constants, crc32, deflateRaw, inflateRaw } from 'node:zlib';
import { featureSpecHash } from './feature-spec';
import { metricNames } from './metrics';
import { trackSize } from './track';

/** What a partition's snapshot says of itself, in each of its records. */
export interface SnapshotHead {
  /** Whose windows: `topic/partition`. */
  of: string;
  /** Common to the snapshots of all partitions that a worker took at once. */
  cut: string;
  /** Everything up to this tick is in the windows. */
  tickMs: number;
  /** Records before this offset need no later tick. */
  dealtWith: number;
  /** Records before this offset were read: what they hold for later ticks has to be read again, the rest is in the windows. */
  read: number;
  /** Where reading begins again; before `dealtWith` if the decoders have to be told of the past. */
  from: number;
  /** Partitions that some of its cells also came by: good for nothing without their snapshots of the same cut. */
  with: string[];
  cells: number;
  /** Number of records, and which of them this is. */
  records: number;
  index: number;
}

/** What is not of this form, or not for this version of the features, or damaged. */
export class SnapshotRefusedError extends Error {}

const magic = 'UWS1';
const prefixBytes = 12;
const wordBytes = 8;
/** What a record may become when it is unpacked. */
const largestBytes = 16 * 1024 * 1024;

/** What the layout of the words depends on: another one cannot be read. */
export const stateVersion = createHash('sha256')
  .update([magic, featureSpecHash, trackSize, ...metricNames].join(' '))
  .digest('hex')
  .slice(0, 16);

const deflate = promisify(deflateRaw);
const inflate = promisify(inflateRaw);
/** Noise does not repeat: looking for runs of equal bytes finds what there is at a fraction of the work. */
const compression = { level: 1, strategy: constants.Z_RLE };

export const recordKey = (of: string, slot: number, index: number): string => `${of}#${slot}#${index}`;

/** `words`: whole cells, as they were saved. */
export async function encodeRecord(head: SnapshotHead, stepMs: number, words: Buffer): Promise<Buffer> {
  const said = Buffer.from(JSON.stringify({ ...head, version: stateVersion, stepMs }));
  const body = await deflate(byPlace(words), compression);
  const record = Buffer.alloc(prefixBytes + said.length + body.length);
  record.write(magic, 0, 'latin1');
  record.writeUInt32LE(said.length, 8);
  said.copy(record, prefixBytes);
  body.copy(record, prefixBytes + said.length);
  record.writeUInt32LE(crc32(record.subarray(8)), 4);
  return record;
}

/** What a record says of its snapshot. Throws SnapshotRefusedError with the reason why it is none for us. */
export function headOf(record: Buffer, stepMs: number): SnapshotHead {
  if (record.length < prefixBytes || record.toString('latin1', 0, 4) !== magic) {
    throw new SnapshotRefusedError('it does not begin as a snapshot does');
  }
  if (record.readUInt32LE(4) !== crc32(record.subarray(8))) throw new SnapshotRefusedError('its checksum does not fit');
  const said = JSON.parse(record.toString('utf8', prefixBytes, bodyAt(record))) as Record<string, unknown>;
  const { version, stepMs: step, ...head } = said;
  if (version !== stateVersion) throw new SnapshotRefusedError(`it is of version ${String(version)}`);
  if (step !== stepMs) throw new SnapshotRefusedError(`its step is ${String(step)} ms, ours ${stepMs} ms`);
  // What a checksum and our own version vouch for is what we wrote.
  return head as unknown as SnapshotHead;
}

const bodyAt = (record: Buffer) => prefixBytes + record.readUInt32LE(8);

/** Throws SnapshotRefusedError with the reason. */
export async function decodeRecord(record: Buffer, stepMs: number): Promise<{ head: SnapshotHead; words: Buffer }> {
  try {
    const head = headOf(record, stepMs);
    const body = await inflate(record.subarray(bodyAt(record)), { maxOutputLength: largestBytes });
    return { head, words: byWord(body) };
  } catch (error) {
    if (error instanceof SnapshotRefusedError) throw error;
    throw new SnapshotRefusedError(`it cannot be unpacked: ${String(error)}`, { cause: error });
  }
}

/** First bytes of all words, then second ones, and so on: signs and exponents are alike, and then lie side by side. */
function byPlace(words: Buffer): Buffer {
  const count = words.length / wordBytes;
  const planes = Buffer.allocUnsafe(words.length);
  for (let place = 0; place < wordBytes; place++) {
    for (let i = 0, at = place, to = place * count; i < count; i++, at += wordBytes)
      planes[to + i] = words[at] as number;
  }
  return planes;
}

function byWord(planes: Buffer): Buffer {
  const count = Math.floor(planes.length / wordBytes);
  const words = Buffer.allocUnsafe(count * wordBytes);
  for (let place = 0; place < wordBytes; place++) {
    for (let i = 0, at = place, from = place * count; i < count; i++, at += wordBytes)
      words[at] = planes[from + i] as number;
  }
  return words;
}
