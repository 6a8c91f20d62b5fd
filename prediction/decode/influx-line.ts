/** A reader of influx line protocol: measurement, tags, fields and time of each line, escapes and quotes included. */

export interface InfluxLine {
  measurement: string;
  tags: Map<string, string>;
  /** Numbers only: text and flags are no measurements. */
  fields: Map<string, number>;
  /** Nanoseconds since the epoch; undefined if the line has none. */
  nanos: number | undefined;
}

/** A malformed line: where in the record it begins to be wrong. */
export class InfluxSyntaxError extends Error {}

const [newline, carriageReturn, space, quote, comma, equals, backslash, hash] = [10, 13, 32, 34, 44, 61, 92, 35];

/**
 * Calls `take` for each line that has a wanted measurement, and `fail` for each that cannot be read; answers how many
 * fields the unwanted lines had. A line ends at a line feed outside of quotes.
 */
export function readInfluxLines(
  text: string,
  isWanted: (measurement: string) => boolean,
  take: (line: InfluxLine) => void,
  fail: (reason: string) => void,
): number {
  let at = 0;
  let unwanted = 0;
  while (at < text.length) {
    const code = text.charCodeAt(at);
    if (code === newline || code === carriageReturn || code === space) at += 1;
    else if (code === hash) at = lineEnd(text, at);
    else {
      const reader = new LineReader(text, at);
      try {
        const line = reader.line(isWanted);
        if (line) take(line);
        else unwanted += reader.fieldCount;
        at = reader.at;
      } catch (error) {
        if (!(error instanceof InfluxSyntaxError)) throw error;
        fail(error.message);
        at = lineEnd(text, Math.max(reader.at, at));
      }
    }
  }
  return unwanted;
}

function lineEnd(text: string, from: number): number {
  const end = text.indexOf('\n', from);
  return end < 0 ? text.length : end + 1;
}

class LineReader {
  fieldCount = 0;

  constructor(
    private readonly text: string,
    public at: number,
  ) {}

  line(isWanted: (measurement: string) => boolean): InfluxLine | undefined {
    const measurement = this.word(comma, -1);
    const wanted = isWanted(measurement);
    const tags = new Map<string, string>();
    const fields = new Map<string, number>();
    while (this.code() === comma) {
      this.at += 1;
      const [key, value] = [this.word(equals, -1), this.expect(equals) ?? this.word(comma, -1)];
      if (wanted) tags.set(key, value);
    }
    this.skipSpaces();
    for (;;) {
      const key = this.word(equals, comma);
      this.expect(equals);
      const value = this.fieldValue();
      this.fieldCount += 1;
      if (wanted && value !== undefined) fields.set(key, value);
      if (this.code() !== comma) break;
      this.at += 1;
    }
    this.skipSpaces();
    const nanos = this.timestamp();
    return wanted ? { measurement, tags, fields, nanos } : undefined;
  }

  private code(): number {
    return this.at < this.text.length ? this.text.charCodeAt(this.at) : newline;
  }

  private isEnd(code: number): boolean {
    return code === newline || code === carriageReturn;
  }

  private skipSpaces(): void {
    while (this.code() === space) this.at += 1;
  }

  private expect(code: number): undefined {
    if (this.code() !== code) this.fail(`expected "${String.fromCharCode(code)}"`);
    this.at += 1;
  }

  private fail(what: string): never {
    throw new InfluxSyntaxError(`character ${this.at}: ${what}`);
  }

  /** Up to an unescaped space, line end or one of the ends. Never empty. */
  private word(end: number, otherEnd: number): string {
    const start = this.at;
    let escaped = false;
    for (;;) {
      const code = this.code();
      if (code === backslash && this.at + 1 < this.text.length && !this.isEnd(this.text.charCodeAt(this.at + 1))) {
        escaped = true;
        this.at += 2;
        continue;
      }
      if (code === space || code === end || code === otherEnd || this.isEnd(code)) break;
      this.at += 1;
    }
    if (this.at === start) this.fail('a name or value is missing');
    const raw = this.text.slice(start, this.at);
    // A backslash before anything but these stands for itself.
    return escaped ? raw.replace(/\\([,= \\])/g, '$1') : raw;
  }

  /** A number, or undefined for text and flags. */
  private fieldValue(): number | undefined {
    if (this.code() === quote) return this.skipText();
    const raw = this.word(comma, -1);
    if (/^(?:t|T|true|True|TRUE|f|F|false|False|FALSE)$/.test(raw)) return undefined;
    const last = raw.charCodeAt(raw.length - 1);
    const isInteger = last === 105 || last === 117; // i, u
    const digits = isInteger ? raw.slice(0, -1) : raw;
    if (!(isInteger ? /^[+-]?\d+$/ : /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/).test(digits)) {
      this.fail(`"${raw.slice(0, 40)}" is no field value`);
    }
    return Number(digits);
  }

  private skipText(): undefined {
    this.at += 1;
    while (this.at < this.text.length) {
      const code = this.text.charCodeAt(this.at);
      if (code === backslash) this.at += 2;
      else if (code === quote) {
        this.at += 1;
        return undefined;
      } else this.at += 1;
    }
    this.at = this.text.length;
    this.fail('a text has no end');
  }

  private timestamp(): number | undefined {
    if (this.isEnd(this.code())) return undefined;
    const raw = this.word(-1, -1);
    if (!/^-?\d+$/.test(raw)) this.fail(`"${raw.slice(0, 40)}" is no time in nanoseconds`);
    this.skipSpaces();
    if (!this.isEnd(this.code())) this.fail('the line goes on after its time');
    return Number(raw);
  }
}
