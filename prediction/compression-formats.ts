/** Unpacks snappy, LZ4 and zstd as Kafka's producers write them, never beyond a given size. Formats by their public descriptions. */
import { Decompress } from 'fzstd';

function tooLarge(largestBytes: number): never {
  throw new Error(`would become more than ${largestBytes} bytes`);
}

function damaged(what: string): never {
  throw new Error(`damaged: ${what}`);
}

/** Copies within the output, byte by byte where source and target overlap: that is how runs are written. */
function copyWithin(out: Buffer, at: number, distance: number, length: number): number {
  if (distance === 0 || distance > at) damaged('a reference before the beginning');
  if (at + length > out.length) damaged('more data than declared');
  if (distance >= length) out.copyWithin(at, at - distance, at - distance + length);
  else for (let i = 0; i < length; i++) out[at + i] = out[at + i - distance] ?? 0;
  return at + length;
}

const xerialMagic = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0]);

/** Java's producers frame snappy in blocks (xerial: magic, two versions, then length and block), librdkafka's do not. */
export function decompressSnappy(data: Buffer, largestBytes: number): Buffer {
  if (!data.subarray(0, 8).equals(xerialMagic)) return snappyBlock(data, largestBytes);
  const blocks: Buffer[] = [];
  let left = largestBytes;
  for (let at = 16; at < data.length;) {
    if (at + 4 > data.length) damaged('a block without its length');
    const length = data.readUInt32BE(at);
    at += 4;
    if (at + length > data.length) damaged('a block ends early');
    const block = snappyBlock(data.subarray(at, at + length), left);
    blocks.push(block);
    left -= block.length;
    at += length;
  }
  return Buffer.concat(blocks);
}

function snappyBlock(data: Buffer, largestBytes: number): Buffer {
  let at = 0;
  let declared = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = data[at++];
    if (byte === undefined || shift > 28) damaged('no length');
    declared += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) break;
  }
  if (declared > largestBytes) tooLarge(largestBytes);
  // No three bytes stand for more than 64: a short block that declares much is not allocated for.
  if (declared > (data.length - at) * 64) damaged('more data declared than can be');
  const out = Buffer.allocUnsafe(declared);
  let end = 0;
  while (at < data.length) {
    const tag = data[at++] ?? 0;
    const kind = tag & 3;
    if (kind === 0) {
      let length = tag >> 2;
      if (length >= 60) {
        const width = length - 59;
        if (at + width > data.length) damaged('a length ends early');
        length = data.readUIntLE(at, width);
        at += width;
      }
      length += 1;
      if (at + length > data.length || end + length > declared) damaged('a literal ends early');
      data.copy(out, end, at, at + length);
      at += length;
      end += length;
    } else {
      const width = kind === 1 ? 1 : kind === 2 ? 2 : 4;
      if (at + width > data.length) damaged('a reference ends early');
      const low = data.readUIntLE(at, width);
      const distance = kind === 1 ? ((tag >> 5) << 8) | low : low;
      at += width;
      end = copyWithin(out, end, distance, kind === 1 ? ((tag >> 2) & 7) + 4 : (tag >> 2) + 1);
    }
  }
  if (end !== declared) damaged('less data than declared');
  return out;
}

const lz4Magic = 0x184d2204;
const lz4BlockBytes = [0, 0, 0, 0, 64 * 1024, 256 * 1024, 1024 * 1024, 4 * 1024 * 1024];

/** LZ4 frames. Checksums are left to Kafka's own over the batch. */
export function decompressLz4(data: Buffer, largestBytes: number): Buffer {
  const out = new GrowingBuffer(largestBytes);
  let at = 0;
  while (at < data.length) {
    if (at + 7 > data.length) damaged('a frame without its header');
    if (data.readUInt32LE(at) !== lz4Magic) damaged('no LZ4 frame');
    const flags = data[at + 4] ?? 0;
    const blockBytes = lz4BlockBytes[((data[at + 5] ?? 0) >> 4) & 7] ?? 0;
    if (flags >> 6 !== 1 || blockBytes === 0) damaged('an unknown version of LZ4 frames');
    if (flags & 1) damaged('an LZ4 frame that needs a dictionary');
    const hasBlockChecksum = (flags & 0x10) !== 0;
    const frameStart = out.length;
    at += 7 + (flags & 8 ? 8 : 0);
    for (;;) {
      if (at + 4 > data.length) damaged('a block without its length');
      const word = data.readUInt32LE(at);
      at += 4;
      if (word === 0) break;
      const length = word & 0x7fffffff;
      if (length > blockBytes || at + length > data.length) damaged('a block ends early');
      const block = data.subarray(at, at + length);
      out.reserve(word >>> 31 ? length : Math.min(blockBytes, length * 255 + 64));
      if (word >>> 31) out.length += block.copy(out.bytes, out.length);
      else out.length = lz4Block(block, out.bytes, out.length, frameStart, blockBytes);
      if (out.length > largestBytes) tooLarge(largestBytes);
      at += length + (hasBlockChecksum ? 4 : 0);
    }
    at += flags & 4 ? 4 : 0;
  }
  return out.bytes.subarray(0, out.length);
}

function lz4Block(data: Buffer, out: Buffer, start: number, frameStart: number, blockBytes: number): number {
  const limit = Math.min(out.length, start + blockBytes);
  let at = 0;
  let end = start;
  while (at < data.length) {
    const token = data[at++] ?? 0;
    let literals = token >> 4;
    if (literals === 15) [literals, at] = lz4Length(data, at, literals);
    if (at + literals > data.length || end + literals > limit) damaged('literals end early');
    data.copy(out, end, at, at + literals);
    at += literals;
    end += literals;
    // A block ends with literals.
    if (at === data.length) break;
    if (at + 2 > data.length) damaged('a reference ends early');
    const distance = data.readUInt16LE(at);
    at += 2;
    let length = token & 15;
    if (length === 15) [length, at] = lz4Length(data, at, length);
    if (distance > end - frameStart || end + length + 4 > limit) damaged('a reference out of the block');
    end = copyWithin(out, end, distance, length + 4);
  }
  return end;
}

function lz4Length(data: Buffer, at: number, base: number): [number, number] {
  let length = base;
  for (;;) {
    const byte = data[at++];
    if (byte === undefined) damaged('a length ends early');
    length += byte;
    if (byte !== 255) return [length, at];
  }
}

/** Grows with what is written, so that nothing is allocated on a mere promise. */
class GrowingBuffer {
  bytes = Buffer.allocUnsafe(64 * 1024);
  length = 0;

  constructor(private readonly largestBytes: number) {}

  reserve(more: number): void {
    const needed = this.length + more;
    if (needed <= this.bytes.length) return;
    // What a block may be at most can lie beyond the bound although what it is does not.
    const grown = Buffer.allocUnsafe(Math.min(Math.max(needed, this.bytes.length * 2), this.largestBytes + more));
    this.bytes.copy(grown, 0, 0, this.length);
    this.bytes = grown;
  }
}

const zstdMagic = 0xfd2fb528;

export function decompressZstd(data: Buffer, largestBytes: number): Buffer {
  checkZstdWindows(data, largestBytes);
  const chunks: Buffer[] = [];
  let length = 0;
  const stream = new Decompress((chunk) => {
    length += chunk.length;
    if (length > largestBytes) tooLarge(largestBytes);
    chunks.push(Buffer.from(chunk));
  });
  stream.push(data, true);
  return Buffer.concat(chunks);
}

/** A frame's window is memory taken before the first byte is unpacked: 9 bytes could ask for gigabytes. */
function checkZstdWindows(data: Buffer, largestBytes: number): void {
  for (let at = 0; at < data.length;) {
    if (at + 6 > data.length) damaged('a frame without its header');
    const magic = data.readUInt32LE(at);
    at += 4;
    if ((magic & 0xfffffff0) >>> 0 === 0x184d2a50) {
      // A frame to be skipped: only its length is of interest.
      if (at + 4 > data.length) damaged('a frame without its header');
      at += 4 + data.readUInt32LE(at);
      continue;
    }
    if (magic !== zstdMagic) damaged('no zstd frame');
    const descriptor = data[at++] ?? 0;
    const isSingle = (descriptor & 0x20) !== 0;
    const sizeBytes = [isSingle ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0;
    if (!isSingle) {
      const window = data[at++] ?? 0;
      const base = 2 ** (10 + (window >> 3));
      if (base + (base / 8) * (window & 7) > largestBytes) tooLarge(largestBytes);
    }
    at += [0, 1, 2, 4][descriptor & 3] ?? 0;
    if (at + sizeBytes > data.length) damaged('a frame without its header');
    const size =
      sizeBytes === 8 ? Number(data.readBigUInt64LE(at)) : sizeBytes > 0 ? data.readUIntLE(at, sizeBytes) : 0;
    if (size > largestBytes) tooLarge(largestBytes);
    at += sizeBytes;
    for (let isLast = false; !isLast;) {
      if (at + 3 > data.length) damaged('a block without its header');
      const header = data.readUIntLE(at, 3);
      isLast = (header & 1) === 1;
      // A run is one byte, however long it becomes.
      at += 3 + (((header >> 1) & 3) === 1 ? 1 : header >> 3);
      if (at > data.length) damaged('a block ends early');
    }
    at += descriptor & 4 ? 4 : 0;
  }
}
