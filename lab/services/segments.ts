/** An append-only journal on disk: segment files of equal size, the oldest removed when the journal has grown too long. */
import { mkdir, open, readdir, unlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';

export interface SegmentOptions {
  dir: string;
  /** A segment is closed when it has reached this size. */
  segmentBytes: number;
  /** The oldest segments are removed when all together come to more. */
  keepBytes: number;
  /** Every how many appends the segment is forced to disk. */
  fsyncEvery: number;
}

interface Segment {
  path: string;
  handle: FileHandle;
  bytes: number;
  /** Appends under way; the file is closed after the last of them. */
  writers: number;
  sealed: boolean;
}

const prefix = 'segment-';

export class Segments {
  private current: Segment | undefined;
  private opening: Promise<Segment> | undefined;
  private readonly older: { path: string; bytes: number }[] = [];
  private number = 0;
  private appends = 0;

  constructor(private readonly options: SegmentOptions) {}

  /** Removes what an earlier life of this instance left: nobody reads it, and its space is this life's. */
  async prepare(): Promise<void> {
    const { dir } = this.options;
    await mkdir(dir, { recursive: true });
    const left = (await readdir(dir)).filter((name) => name.startsWith(prefix));
    await Promise.all(left.map((name) => unlink(join(dir, name))));
  }

  /** Appends the whole entry, or throws the file system's error (ENOSPC, EMFILE). */
  async append(entry: Buffer): Promise<void> {
    const segment = await this.segment();
    const position = segment.bytes;
    // Claimed at once: appends may overlap.
    segment.bytes += entry.length;
    segment.writers++;
    try {
      for (let written = 0; written < entry.length;) {
        const part = await segment.handle.write(entry, written, entry.length - written, position + written);
        written += part.bytesWritten;
      }
      if (++this.appends % this.options.fsyncEvery === 0) await segment.handle.datasync();
    } finally {
      segment.writers--;
      await this.closeIfDone(segment);
    }
  }

  private async segment(): Promise<Segment> {
    const { current } = this;
    if (current && current.bytes < this.options.segmentBytes) return current;
    this.opening ??= this.rotate().finally(() => (this.opening = undefined));
    return this.opening;
  }

  private async rotate(): Promise<Segment> {
    const full = this.current;
    if (full) {
      this.current = undefined;
      full.sealed = true;
      this.older.push({ path: full.path, bytes: full.bytes });
      await this.closeIfDone(full);
    }
    let total = this.older.reduce((sum, { bytes }) => sum + bytes, 0);
    for (; total + this.options.segmentBytes > this.options.keepBytes;) {
      const oldest = this.older.shift();
      if (!oldest) break;
      total -= oldest.bytes;
      await unlink(oldest.path);
    }
    const path = join(this.options.dir, `${prefix}${this.number++}`);
    this.current = { path, handle: await open(path, 'w'), bytes: 0, writers: 0, sealed: false };
    return this.current;
  }

  private async closeIfDone(segment: Segment): Promise<void> {
    if (segment.sealed && segment.writers === 0) await segment.handle.close();
  }
}
