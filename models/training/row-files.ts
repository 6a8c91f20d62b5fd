/** The files a trainer reads: features.f32 and labels.f64, row by row, and rows.json, which says what they are rows of. */
import { createHash } from 'node:crypto';
import { createWriteStream, mkdirSync, readFileSync, readdirSync, writeFileSync, type WriteStream } from 'node:fs';
import { once } from 'node:events';
import { join } from 'node:path';
import type { RecordedGroup } from './recorded';

/** Per row: group, cell, variant, steps since the cell's first row, stepsToFailure (NaN: none), stepsWatched (NaN: unused). */
export const labelColumns = 6;

export class RowFiles {
  rows = 0;
  readonly groups: object[] = [];
  private readonly cells: object[] = [];
  private readonly features: WriteStream;
  private readonly labels: WriteStream;

  constructor(private readonly dir: string) {
    mkdirSync(dir, { recursive: true });
    this.features = createWriteStream(join(dir, 'features.f32'));
    this.labels = createWriteStream(join(dir, 'labels.f64'));
  }

  /** Before a group's rows. Returns the numbers that stand in their labels; the cells count on from the first. */
  begin(group: RecordedGroup, more: object = {}): { index: number; firstCell: number } {
    const numbers = { index: this.groups.length, firstCell: this.cells.length };
    const { source, number, service, stepMs, faults } = group;
    this.groups.push({ source, number, service, stepMs, faults, ...more });
    for (const { cell, incidents, fromMs, toMs } of group.cells) {
      this.cells.push({ cell, group: numbers.index, fromMs, toMs, stepMs, incidents });
    }
    return numbers;
  }

  async append(features: Float32Array, label: readonly number[]): Promise<void> {
    this.rows += 1;
    const flowing = this.features.write(Buffer.from(features.buffer, features.byteOffset, features.byteLength));
    this.labels.write(Buffer.from(Float64Array.from(label).buffer));
    if (!flowing) await once(this.features, 'drain');
  }

  /** Finishes the files; `about` joins what rows.json says of all rows. */
  async close(about: object): Promise<void> {
    for (const stream of [this.features, this.labels]) {
      stream.end();
      await once(stream, 'finish');
    }
    const { rows, groups, cells } = this;
    writeFileSync(join(this.dir, 'rows.json'), JSON.stringify({ rows, labelColumns, ...about, groups, cells }));
  }
}

/** SHA-256 (hex) over the files of the recordings, in order of name. */
export function hashOfRecordings(dirs: readonly string[]): string {
  const hash = createHash('sha256');
  for (const dir of dirs) {
    for (const file of readdirSync(dir).sort()) {
      if (/\.(ndjson|gz|br)$/.test(file)) hash.update(readFileSync(join(dir, file)));
    }
  }
  return hash.digest('hex');
}
