/** Reads a text file line by line with its line numbers, unpacked on the way, whatever its size. */
import { createReadStream, openSync, readSync, closeSync } from 'node:fs';
import { pipeline, Transform } from 'node:stream';
import { createBrotliDecompress, createGunzip } from 'node:zlib';
import { Decompress } from 'fzstd';

export interface Line {
  /** From 1. */
  number: number;
  /** Without its line end; never empty. */
  bytes: Buffer;
}

/** A line this long is no record. */
const longestLine = 16 * 1024 * 1024;

/** Packed or not is told from the first bytes; brotli, which has none of its own, from the name. */
export async function* readLinesOf(file: string): AsyncGenerator<Line> {
  let number = 0;
  let rest: Buffer[] = [];
  let restLength = 0;
  for await (const chunk of unpacked(file)) {
    let from = 0;
    for (let to = chunk.indexOf(10); to >= 0; to = chunk.indexOf(10, from)) {
      number += 1;
      rest.push(chunk.subarray(from, to));
      const line = trimmed(rest);
      if (line.length > 0) yield { number, bytes: line };
      rest = [];
      restLength = 0;
      from = to + 1;
    }
    rest.push(Buffer.from(chunk.subarray(from)));
    restLength += chunk.length - from;
    if (restLength > longestLine) {
      throw new Error(`${file}:${number + 1}: a line of more than 16 MiB; expected one record per line`);
    }
  }
  const line = trimmed(rest);
  if (line.length > 0) yield { number: number + 1, bytes: line };
}

function trimmed(parts: Buffer[]): Buffer {
  let line = parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
  while (line.length > 0 && (line[line.length - 1] as number) <= 32) line = line.subarray(0, -1);
  return line;
}

function unpacked(file: string): AsyncIterable<Buffer> {
  const unpack = unpackerFor(file);
  const input = createReadStream(file, { highWaterMark: 1 << 18 });
  if (!unpack) return input as AsyncIterable<Buffer>;
  // Errors reach the reader through the last stream; the callback keeps them from being thrown elsewhere too.
  return pipeline(input, unpack, () => undefined);
}

function unpackerFor(file: string): Transform | undefined {
  const head = Buffer.alloc(4);
  let length: number;
  try {
    const handle = openSync(file, 'r');
    length = readSync(handle, head, 0, 4, 0);
    closeSync(handle);
  } catch (error) {
    throw new Error(`${file}: cannot be read: ${(error as Error).message}`, { cause: error });
  }
  if (length >= 2 && head[0] === 0x1f && head[1] === 0x8b) return createGunzip();
  if (length === 4 && head.readUInt32LE(0) === 0xfd2fb528) return zstdUnpacker();
  return file.endsWith('.br') ? createBrotliDecompress() : undefined;
}

function zstdUnpacker(): Transform {
  const decompress = new Decompress();
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      decompress.ondata = (data) => this.push(Buffer.from(data));
      try {
        decompress.push(chunk);
        done();
      } catch (error) {
        done(error as Error);
      }
    },
  });
}
