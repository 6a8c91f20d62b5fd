/** Writes and reads state as words of eight bytes, numbers as they lie in memory: bit for bit what it was. */

const wordBytes = 8;

/** Grows as needed. Bytes are in the order of the machine, which is little-endian wherever Node runs on servers. */
export class WordWriter {
  private bytes: Buffer;
  private doubles: Float64Array;
  /** Words written. */
  private length = 0;

  constructor(words = 1024) {
    this.bytes = Buffer.alloc(0);
    this.doubles = new Float64Array(0);
    this.grow(words);
  }

  get byteLength(): number {
    return this.length * wordBytes;
  }

  number(value: number): void {
    if (this.length === this.doubles.length) this.grow(1);
    this.doubles[this.length++] = value;
  }

  /** The numbers from `from` to before `to`. */
  numbers(source: Float64Array, from: number, to: number): void {
    if (this.length + to - from > this.doubles.length) this.grow(to - from);
    this.doubles.set(source.subarray(from, to), this.length);
    this.length += to - from;
  }

  text(text: string): void {
    const bytes = Buffer.byteLength(text);
    const words = Math.ceil(bytes / wordBytes);
    this.number(bytes);
    if (this.length + words > this.doubles.length) this.grow(words);
    this.doubles.fill(0, this.length, this.length + words);
    this.bytes.write(text, this.byteLength);
    this.length += words;
  }

  /** A copy of what has been written. The writer begins anew, with its memory. */
  take(): Buffer {
    const taken = Buffer.from(this.bytes.subarray(0, this.byteLength));
    this.length = 0;
    return taken;
  }

  private grow(words: number): void {
    const larger = new Float64Array(Math.max(this.length + words, 2 * this.doubles.length));
    larger.set(this.doubles.subarray(0, this.length));
    this.doubles = larger;
    this.bytes = Buffer.from(larger.buffer);
  }
}

/** Reads what `WordWriter` wrote. Throws RangeError where the bytes end early or cannot be what is asked for. */
export class WordReader {
  private readonly bytes: Buffer;
  private readonly doubles: Float64Array;
  private at = 0;

  constructor(written: Buffer) {
    if (written.length % wordBytes !== 0) throw new RangeError(`${written.length} bytes are no whole words`);
    // A view of doubles has to begin where a double may lie.
    const aligned = new Float64Array(written.length / wordBytes);
    this.bytes = Buffer.from(aligned.buffer);
    written.copy(this.bytes);
    this.doubles = aligned;
  }

  get isAtEnd(): boolean {
    return this.at === this.doubles.length;
  }

  number(): number {
    return this.doubles[this.need(1)] as number;
  }

  /** A whole number from 0 to `most`. */
  count(most: number): number {
    const count = this.number();
    if (!Number.isInteger(count) || count < 0 || count > most)
      throw new RangeError(`${count} is not within 0..${most}`);
    return count;
  }

  /** Into `target` from `from` to before `to`. */
  numbers(target: Float64Array, from: number, to: number): void {
    const at = this.need(to - from);
    target.set(this.doubles.subarray(at, at + to - from), from);
  }

  text(): string {
    const bytes = this.count(this.bytes.length);
    const at = this.need(Math.ceil(bytes / wordBytes)) * wordBytes;
    return this.bytes.toString('utf8', at, at + bytes);
  }

  private need(words: number): number {
    const { at } = this;
    if (at + words > this.doubles.length) throw new RangeError(`${this.doubles.length} words, and more are needed`);
    this.at += words;
    return at;
  }
}
