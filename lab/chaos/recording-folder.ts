/** The files of a chaos recording: parts while it is made, then telemetry, incidents, episodes, measurements and data card. */
import {
  createReadStream,
  createWriteStream,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import {
  brotliCompressSync,
  brotliDecompressSync,
  constants,
  createBrotliCompress,
  createBrotliDecompress,
  gunzipSync,
} from 'node:zlib';
import { dataCard } from './data-card';
import {
  incidentsOf,
  spoiltBy,
  type EpisodeDescription,
  type EpisodePart,
  type IncidentRecord,
  type MeasuredColumns,
  type TelemetryRecord,
} from './episode-file';

const files = {
  telemetry: 'telemetry.ndjson.br',
  incidents: 'incidents.ndjson',
  episodes: 'episodes.ndjson',
  measured: 'measured.ndjson.br',
  card: 'README.md',
} as const;

const brotli = (quality: number): { params: Record<number, number> } => ({
  params: {
    [constants.BROTLI_PARAM_MODE]: constants.BROTLI_MODE_TEXT,
    [constants.BROTLI_PARAM_QUALITY]: quality,
    [constants.BROTLI_PARAM_LGWIN]: 22,
  },
});

/** A recording being made: one file per finished episode, so that an interrupted one goes on where it stopped. */
export class ChaosFolder {
  private readonly parts: string;

  constructor(readonly dir: string) {
    this.parts = join(dir, 'parts');
    mkdirSync(this.parts, { recursive: true });
  }

  partOf(number: number): string {
    return join(this.parts, `${String(number).padStart(5, '0')}.json.gz`);
  }

  has(number: number): boolean {
    return existsSync(this.partOf(number));
  }

  /** Removes the parts that say nothing, so that their episodes are recorded anew. Returns their numbers and why. */
  dropSpoilt(): Map<number, string> {
    const dropped = new Map<number, string>();
    for (const name of this.partNames()) {
      const part = this.read(name);
      const reason = spoiltBy(part, incidentsOf(part));
      if (reason === undefined) continue;
      dropped.set(part.description.episode, reason);
      rmSync(join(this.parts, name));
    }
    return dropped;
  }

  private partNames(): string[] {
    return readdirSync(this.parts)
      .filter((name) => name.endsWith('.json.gz'))
      .sort();
  }

  private read(name: string): EpisodePart {
    return JSON.parse(gunzipSync(readFileSync(join(this.parts, name))).toString('utf8')) as EpisodePart;
  }

  /**
   * Writes the recording's files from its sound parts, in the order of their numbers. Each is whole before it takes its
   * name: killed on the way, or with another recorder at the same folder, no half-written file is left to be read.
   *
   * @param command for the data card: how to make the recording again
   * @param quality of the compression, 0 to 11
   */
  async assemble(command: string, quality = 9): Promise<{ kept: EpisodeDescription[]; leftOut: Map<number, string> }> {
    const kept: EpisodeDescription[] = [];
    const leftOut = new Map<number, string>();
    const incidents: IncidentRecord[] = [];
    const measured: MeasuredColumns[] = [];
    let samples = 0;
    const packed = createBrotliCompress(brotli(quality));
    const unfinished = join(this.dir, `${files.telemetry}.${process.pid}`);
    const written = packed.pipe(createWriteStream(unfinished));
    for (const name of this.partNames()) {
      const part = this.read(name);
      // Found here, not when recorded: the definition of failure can then be applied anew to what was measured.
      const own = incidentsOf(part);
      const spoilt = spoiltBy(part, own);
      if (spoilt !== undefined) {
        leftOut.set(part.description.episode, spoilt);
        continue;
      }
      kept.push(part.description);
      incidents.push(...own);
      measured.push(...part.measured);
      samples += part.telemetry.length;
      const text = part.telemetry.map((record) => `${JSON.stringify(record)}\n`).join('');
      if (!packed.write(text)) await once(packed, 'drain');
    }
    packed.end();
    await once(written, 'close');
    renameSync(unfinished, join(this.dir, files.telemetry));
    const lines = (values: readonly unknown[]): string => values.map((value) => `${JSON.stringify(value)}\n`).join('');
    this.write(files.incidents, lines(incidents));
    this.write(files.episodes, lines(kept));
    this.write(files.measured, brotliCompressSync(lines(measured), brotli(quality)));
    this.write(files.card, dataCard({ episodes: kept, incidents, leftOut, samples, command }));
    return { kept, leftOut };
  }

  private write(name: string, content: string | Buffer): void {
    const unfinished = join(this.dir, `${name}.${process.pid}`);
    writeFileSync(unfinished, content);
    renameSync(unfinished, join(this.dir, name));
  }

  /** Removes what only an unfinished recording needs. */
  dropParts(): void {
    rmSync(this.parts, { recursive: true, force: true });
  }
}

const parseLines = <T>(text: string): T[] =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as T);

/** One episode of a recording, with everything that belongs to it. */
export interface RecordedEpisode {
  description: EpisodeDescription;
  incidents: IncidentRecord[];
  measured: MeasuredColumns[];
  /** Ordered by cell, then by time. */
  telemetry: TelemetryRecord[];
}

export const isChaosRecording = (dir: string): boolean => existsSync(join(dir, files.telemetry));

/** The recording's episodes, one after the other; only one is in memory at a time. */
export async function* readRecording(dir: string): AsyncGenerator<RecordedEpisode> {
  const episodes = parseLines<EpisodeDescription>(readFileSync(join(dir, files.episodes), 'utf8'));
  const measured = parseLines<MeasuredColumns>(
    brotliDecompressSync(readFileSync(join(dir, files.measured))).toString('utf8'),
  );
  const byCell = new Map<string, RecordedEpisode>();
  const recorded = episodes.map((description): RecordedEpisode => {
    const episode = { description, incidents: [], measured: [], telemetry: [] };
    for (const { cell } of description.cells) byCell.set(cell, episode);
    return episode;
  });
  for (const columns of measured) byCell.get(columns.cell)?.measured.push(columns);
  for (const incident of parseLines<IncidentRecord>(readFileSync(join(dir, files.incidents), 'utf8'))) {
    byCell.get(incident.cell)?.incidents.push(incident);
  }
  let next = 0;
  const input = createReadStream(join(dir, files.telemetry)).pipe(createBrotliDecompress());
  for await (const line of createInterface({ input })) {
    if (line === '') continue;
    const record = JSON.parse(line) as TelemetryRecord;
    const episode = byCell.get(record.cell);
    if (!episode)
      throw new Error(`${join(dir, files.telemetry)} speaks of the cell ${record.cell}, which no episode has.`);
    for (let current = recorded[next]; current && current !== episode; current = recorded[next]) {
      yield current;
      current.telemetry = [];
      next++;
    }
    episode.telemetry.push(record);
  }
  for (const rest of recorded.slice(next)) yield rest;
}
