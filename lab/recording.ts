/** The files of a recording: decoded telemetry, incidents and episode descriptions, as NDJSON. */
import {
  createReadStream,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { createGunzip, gunzipSync, gzipSync } from 'node:zlib';
import type { Sample } from '../prediction/contracts';
import { isMetricName, type MetricName } from '../prediction/metrics';
import type { EpisodePlan } from './episode-plan';
import type { EpisodeRecord } from './episode';
import { findFailures, usualFailure, type MeasuredSecond } from './onset';

export interface Incident {
  cell: string;
  fault: string;
  fault_start: string;
  onset: string;
  recovered: string | null;
  predictable: boolean;
}

export interface EpisodeDescription {
  plan: EpisodePlan;
  load_started: string;
  ended: string;
  died: (string | null)[];
  slo_ms: number;
  measured: MeasuredSecond[];
}

interface TelemetryRecord {
  schema: 'understudy.telemetry/v1';
  cell: string;
  instance: string;
  ts: string;
  metrics: Partial<Record<MetricName, number>>;
}

const iso = (ms: number): string => new Date(ms).toISOString();

/** Six significant digits: more than any of these measurements carries, and half the size. */
const compact = (value: number): number => Number(value.toPrecision(6));

function telemetryOf(samples: readonly Sample[]): TelemetryRecord[] {
  const records = new Map<string, TelemetryRecord>();
  for (const { cell, instance, atMs, metric, value } of samples) {
    const key = `${instance}\u0000${atMs}`;
    let record = records.get(key);
    // Two producers may speak of one metric at one instant: the second value gets a record of its own.
    if (record && metric in record.metrics) record = undefined;
    if (!record) {
      record = { schema: 'understudy.telemetry/v1', cell, instance, ts: iso(atMs), metrics: {} };
      records.set(records.has(key) ? `${key}\u0000${records.size}` : key, record);
    }
    record.metrics[metric] = compact(value);
  }
  return [...records.values()].sort((a, b) => (a.ts < b.ts ? -1 : a.ts > b.ts ? 1 : 0));
}

/** Failures of the episode; the fault is the leak if one had begun, else the load. */
export function incidentsOf({ plan, loadStartedMs, measured }: EpisodeRecord): Incident[] {
  const leakStart = plan.leakOrders.find((o) => o.bytesPerSecond > 0);
  const leakStartMs = leakStart ? loadStartedMs + 1000 * leakStart.atS : Infinity;
  return findFailures(measured).map(({ onsetMs, recoveredMs }) => {
    const byLeak = onsetMs >= leakStartMs && plan.kind === 'leak-to-death';
    return {
      cell: plan.cell,
      fault: byLeak ? 'memory-leak' : 'load',
      fault_start: iso(byLeak ? leakStartMs : onsetMs),
      onset: iso(onsetMs),
      recovered: recoveredMs === undefined ? null : iso(recoveredMs),
      predictable: byLeak,
    };
  });
}

/** A recording being made: one file per finished episode, so that an interrupted recording goes on where it stopped. */
export class RecordingFolder {
  private readonly parts: string;

  constructor(readonly dir: string) {
    this.parts = join(dir, 'parts');
    mkdirSync(this.parts, { recursive: true });
  }

  has(number: number): boolean {
    return existsSync(this.partOf(number));
  }

  /** Whole or not at all: the part appears under its name only when it is complete. */
  save(record: EpisodeRecord): void {
    const part = {
      description: {
        plan: record.plan,
        load_started: iso(record.loadStartedMs),
        ended: iso(record.endedMs),
        died: record.diedMs.map((ms) => (ms === null ? null : iso(ms))),
        slo_ms: usualFailure.sloMs,
        measured: record.measured,
      } satisfies EpisodeDescription,
      incidents: incidentsOf(record),
      telemetry: telemetryOf(record.samples),
    };
    const file = this.partOf(record.plan.number);
    writeFileSync(`${file}.new`, gzipSync(JSON.stringify(part)));
    renameSync(`${file}.new`, file);
  }

  /** Writes the recording's three files from the parts. Returns how many episodes they hold. */
  assemble(): number {
    const telemetry: string[] = [];
    const incidents: string[] = [];
    const episodes: string[] = [];
    const names = readdirSync(this.parts).filter((name) => name.endsWith('.json.gz'));
    for (const name of names.sort()) {
      const part = JSON.parse(gunzipSync(readFileSync(join(this.parts, name))).toString('utf8')) as {
        description: EpisodeDescription;
        incidents: Incident[];
        telemetry: TelemetryRecord[];
      };
      telemetry.push(...part.telemetry.map((r) => JSON.stringify(r)));
      incidents.push(...part.incidents.map((i) => JSON.stringify(i)));
      episodes.push(JSON.stringify(part.description));
    }
    const text = (lines: string[]): string => lines.map((line) => `${line}\n`).join('');
    writeFileSync(join(this.dir, 'telemetry.ndjson.gz'), gzipSync(text(telemetry), { level: 9 }));
    writeFileSync(join(this.dir, 'incidents.ndjson'), text(incidents));
    writeFileSync(join(this.dir, 'episodes.ndjson'), text(episodes));
    return episodes.length;
  }

  /** Removes what only an unfinished recording needs. */
  dropParts(): void {
    rmSync(this.parts, { recursive: true, force: true });
  }

  private partOf(number: number): string {
    return join(this.parts, `${String(number).padStart(5, '0')}.json.gz`);
  }
}

function readLines<T>(file: string): T[] {
  return readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as T);
}

export const readIncidents = (dir: string): Incident[] => readLines(join(dir, 'incidents.ndjson'));
export const readEpisodes = (dir: string): EpisodeDescription[] => readLines(join(dir, 'episodes.ndjson'));

/** The recording's samples in the order of their time within each cell. */
export async function* readSamples(dir: string): AsyncGenerator<Sample> {
  const input = createReadStream(join(dir, 'telemetry.ndjson.gz')).pipe(createGunzip());
  for await (const line of createInterface({ input })) {
    if (line === '') continue;
    const { cell, instance, ts, metrics } = JSON.parse(line) as TelemetryRecord;
    const atMs = Date.parse(ts);
    for (const [metric, value] of Object.entries(metrics)) {
      if (isMetricName(metric)) yield { cell, instance, atMs, metric, value };
    }
  }
}
