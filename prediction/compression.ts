/** Teaches kafkajs every compression of Kafka (it knows gzip alone) and bounds what a batch may become. */
import { promisify } from 'node:util';
import { gzip, unzip } from 'node:zlib';
import { CompressionCodecs, CompressionTypes } from 'kafkajs';
import { decompressLz4, decompressSnappy, decompressZstd } from './compression-formats';

/** Real telemetry becomes ten to thirty times larger, and a batch arrives as 1 MiB by default. */
export const largestBatchBytes = 64 * 1024 * 1024;

/** Header of a record that stands in for one of a batch that could not be unpacked; its value says why. */
export const refusedBatchHeader = 'understudy-refused-batch';

/** kafkajs hands a batch's records on as arguments of one call: more of them than this would end the process. */
const largestStandIn = 100_000;

const zip = promisify(gzip);
const unzipBounded = (data: Buffer) =>
  promisify(unzip)(data, { maxOutputLength: largestBatchBytes }) as Promise<Buffer>;

type Decompress = (data: Buffer, largestBytes: number) => Buffer;

let isRegistered = false;

/**
 * Registers the codecs in kafkajs, once per process; to be called before the first consumer. A batch that cannot be
 * unpacked, or would exceed the bound, does not end the consumer (which would meet it again for ever): each of its
 * records is delivered without a value and with `refusedBatchHeader`.
 */
export function registerCompression(): void {
  if (isRegistered) return;
  isRegistered = true;
  CompressionCodecs[CompressionTypes.GZIP] = () => ({
    compress: ({ buffer }: { buffer: Buffer }) => zip(buffer),
    decompress: (data: Buffer) => unzipBounded(data).catch((error: unknown) => standIn(data, 'gzip', error)),
  });
  register(CompressionTypes.Snappy, 'snappy', decompressSnappy);
  register(CompressionTypes.LZ4, 'lz4', decompressLz4);
  register(CompressionTypes.ZSTD, 'zstd', decompressZstd);
}

function register(type: Exclude<CompressionTypes, CompressionTypes.None>, name: string, decompress: Decompress): void {
  CompressionCodecs[type] = () => ({
    compress: async () => {
      throw new Error(`Understudy reads ${name} and does not write it: use gzip or no compression for this producer.`);
    },
    decompress: async (data: Buffer) => {
      try {
        return decompress(data, largestBatchBytes);
      } catch (error) {
        return standIn(data, name, error);
      }
    },
  });
}

/** As many records without a value as the batch says it has, each with the reason. */
function standIn(data: Buffer, codec: string, error: unknown): Buffer {
  const reason = `a ${codec} batch of ${data.length} bytes: ${error instanceof Error ? error.message : String(error)}`;
  const count = recordCount(data);
  if (count === undefined || count > largestStandIn) throw new Error(`Cannot unpack ${reason}`, { cause: error });
  const header = [bytesOf(refusedBatchHeader), bytesOf(reason.slice(0, 300))];
  const records: Buffer[] = [];
  for (let offset = 0; offset < count; offset++) {
    // Attributes, time delta 0, offset delta, no key, no value, one header.
    const body = Buffer.concat([Buffer.from([0, 0]), varint(offset), varint(-1), varint(-1), varint(1), ...header]);
    records.push(varint(body.length), body);
  }
  return Buffer.concat(records);
}

/** kafkajs reads the batch's count of records just before the bytes that it hands to the codec, out of the same memory. */
function recordCount(data: Buffer): number | undefined {
  if (data.byteOffset < 4) return undefined;
  return Buffer.from(data.buffer, data.byteOffset - 4, 4).readInt32BE(0);
}

function bytesOf(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([varint(bytes.length), bytes]);
}

/** A signed variable-length integer as in Kafka's records (zigzag). */
function varint(value: number): Buffer {
  let rest = ((value << 1) ^ (value >> 31)) >>> 0;
  const bytes: number[] = [];
  while (rest > 0x7f) {
    bytes.push((rest & 0x7f) | 0x80);
    rest >>>= 7;
  }
  bytes.push(rest);
  return Buffer.from(bytes);
}
