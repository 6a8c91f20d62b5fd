/** Plots as inline SVG text: axes, lines, bars and marks, coloured by the page's style sheet and labelled for readers. */

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

export interface Axis {
  from: number;
  to: number;
  label: string;
  /** Where numbers stand; chosen evenly if not given. */
  ticks?: readonly number[];
  format?: (value: number) => string;
}

export interface PlotOptions {
  /** What the plot shows, in a sentence, for those who do not see it. */
  description: string;
  x: Axis;
  y: Axis;
  width?: number;
  height?: number;
}

const margin = { left: 52, right: 14, top: 12, bottom: 40 };

/** Round numbers, some five of them. */
export function evenTicks(from: number, to: number, about = 5): number[] {
  const span = to - from;
  if (!(span > 0) || !Number.isFinite(span)) return [from];
  const raw = span / about;
  const magnitude = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * magnitude).find((s) => s >= raw) ?? 10 * magnitude;
  const ticks: number[] = [];
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to + span * 1e-9; i++)
    ticks.push(Number((i * step).toPrecision(10)));
  return ticks;
}

const n1 = (value: number): string => String(Math.round(value * 10) / 10);

export class Plot {
  private readonly parts: string[] = [];
  private readonly width: number;
  private readonly height: number;

  constructor(private readonly options: PlotOptions) {
    this.width = options.width ?? 460;
    this.height = options.height ?? 300;
    this.axes();
  }

  private px(x: number): number {
    const { from, to } = this.options.x;
    const share = to > from ? (x - from) / (to - from) : 0.5;
    return margin.left + Math.min(1, Math.max(0, share)) * (this.width - margin.left - margin.right);
  }

  private py(y: number): number {
    const { from, to } = this.options.y;
    const share = to > from ? (y - from) / (to - from) : 0.5;
    return this.height - margin.bottom - Math.min(1, Math.max(0, share)) * (this.height - margin.top - margin.bottom);
  }

  private axes(): void {
    const { x, y } = this.options;
    const bottom = this.height - margin.bottom;
    const right = this.width - margin.right;
    for (const tick of y.ticks ?? evenTicks(y.from, y.to)) {
      const at = n1(this.py(tick));
      this.parts.push(`<line class="grid" x1="${margin.left}" x2="${right}" y1="${at}" y2="${at}"/>`);
      this.text(margin.left - 6, this.py(tick) + 4, (y.format ?? String)(tick), 'end');
    }
    for (const tick of x.ticks ?? evenTicks(x.from, x.to)) {
      this.text(this.px(tick), bottom + 16, (x.format ?? String)(tick), 'middle');
    }
    this.parts.push(`<line class="axis" x1="${margin.left}" x2="${right}" y1="${bottom}" y2="${bottom}"/>`);
    this.text((margin.left + right) / 2, this.height - 6, x.label, 'middle', 'label');
    const middle = n1((margin.top + bottom) / 2);
    this.parts.push(
      `<text class="label" text-anchor="middle" transform="translate(13 ${middle}) rotate(-90)">${escapeHtml(y.label)}</text>`,
    );
  }

  private text(x: number, y: number, text: string, anchor: string, kind = 'tick'): void {
    this.parts.push(
      `<text class="${kind}" x="${n1(x)}" y="${n1(y)}" text-anchor="${anchor}">${escapeHtml(text)}</text>`,
    );
  }

  /** A line through the points; null breaks it. */
  line(points: readonly (readonly [number, number | null])[], kind: string): this {
    let path = '';
    let pen = 'M';
    for (const [x, y] of points) {
      if (y === null || Number.isNaN(y)) {
        pen = 'M';
        continue;
      }
      path += `${pen}${n1(this.px(x))} ${n1(this.py(y))}`;
      pen = 'L';
    }
    if (path !== '') this.parts.push(`<path class="${kind}" d="${path}"/>`);
    return this;
  }

  dots(points: readonly { x: number; y: number; title: string }[], kind: string, radius = 4): this {
    for (const { x, y, title } of points) {
      this.parts.push(
        `<circle class="${kind}" cx="${n1(this.px(x))}" cy="${n1(this.py(y))}" r="${radius}"><title>${escapeHtml(title)}</title></circle>`,
      );
    }
    return this;
  }

  bar(fromX: number, toX: number, y: number, kind: string, title: string): this {
    const left = this.px(fromX);
    const top = this.py(y);
    const height = this.height - margin.bottom - top;
    this.parts.push(
      `<rect class="${kind}" x="${n1(left + 1)}" y="${n1(top)}" width="${n1(Math.max(1, this.px(toX) - left - 2))}" height="${n1(height)}"><title>${escapeHtml(title)}</title></rect>`,
    );
    return this;
  }

  /** A band over the whole height. */
  band(fromX: number, toX: number, kind: string): this {
    const left = this.px(fromX);
    const width = Math.max(1.5, this.px(toX) - left);
    this.parts.push(
      `<rect class="${kind}" x="${n1(left)}" y="${margin.top}" width="${n1(width)}" height="${this.height - margin.top - margin.bottom}"/>`,
    );
    return this;
  }

  /** A vertical line with a word at its top. */
  mark(x: number, word: string, kind: string, row = 0): this {
    const { from, to } = this.options.x;
    if (x < from || x > to) return this;
    const at = this.px(x);
    const isRight = at > this.width - margin.right - 70;
    this.parts.push(
      `<line class="${kind}" x1="${n1(at)}" x2="${n1(at)}" y1="${margin.top}" y2="${this.height - margin.bottom}"/>`,
    );
    this.text(at + (isRight ? -4 : 4), margin.top + 10 + 13 * row, word, isRight ? 'end' : 'start', `tick ${kind}`);
    return this;
  }

  level(y: number, kind: string): this {
    const at = n1(this.py(y));
    this.parts.push(
      `<line class="${kind}" x1="${margin.left}" x2="${this.width - margin.right}" y1="${at}" y2="${at}"/>`,
    );
    return this;
  }

  toString(): string {
    const { description } = this.options;
    return (
      `<svg viewBox="0 0 ${this.width} ${this.height}" role="img" aria-label="${escapeHtml(description)}">` +
      `<title>${escapeHtml(description)}</title>${this.parts.join('')}</svg>`
    );
  }
}
