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
import { failureOf, findFailures, type MeasuredSecond } from './onset';

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

const mostForeignShare = 0.25;
/** Collecting garbage near the limit makes an instance slow for at most about this long before it dies. */
const mostSufferingBeforeDeathMs = 15_000;

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

/**
 * Failures of the episode. One is the leak's if it began after the leak did and lasted to the end, as exhaustion does; any
 * other is put down to load (the cell's own, or that of the machine it shared).
 */
export function incidentsOf({ plan, load_started, measured }: EpisodeDescription): Incident[] {
  const leakStart = plan.leakOrders.find((o) => o.bytesPerSecond > 0);
  const leakStartMs = leakStart ? Date.parse(load_started) + 1000 * leakStart.atS : Infinity;
  return findFailures(measured, failureOf(plan)).map(({ onsetMs, recoveredMs }) => {
    const byLeak = plan.kind === 'leak-to-death' && onsetMs >= leakStartMs && recoveredMs === undefined;
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

/**
 * Why an episode says nothing about the service: the machine that ran it was starved by other work. Callers then suffered
 * from that, for a large part of the time or long before the leak could have done it. Undefined for a sound episode.
 */
export function spoiltBy(
  { load_started, ended, died }: EpisodeDescription,
  incidents: readonly Incident[],
): string | undefined {
  const endedMs = Date.parse(ended);
  let foreignMs = 0;
  for (const { fault, onset, recovered } of incidents) {
    const onsetMs = Date.parse(onset);
    if (fault === 'load') foreignMs += (recovered === null ? endedMs : Date.parse(recovered)) - onsetMs;
    const firstDeathMs = Math.min(...died.map((at) => (at === null ? Infinity : Date.parse(at))));
    if (fault === 'memory-leak' && firstDeathMs - onsetMs > mostSufferingBeforeDeathMs && firstDeathMs < Infinity) {
      return 'callers suffered long before the leak could be the cause';
    }
  }
  const share = foreignMs / (endedMs - Date.parse(load_started));
  return share > mostForeignShare
    ? `failing for ${Math.round(100 * share)} % of the time without a cause of its own`
    : undefined;
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
        slo_ms: failureOf(record.plan).sloMs,
        measured: record.measured,
      } satisfies EpisodeDescription,
      telemetry: telemetryOf(record.samples),
    };
    const file = this.partOf(record.plan.number);
    writeFileSync(`${file}.new`, gzipSync(JSON.stringify(part)));
    renameSync(`${file}.new`, file);
  }

  /** Writes the recording's three files from the sound parts. Returns the numbers of their episodes, and what was left out. */
  assemble(): { kept: number[]; leftOut: Record<number, string> } {
    const kept: number[] = [];
    const leftOut: Record<number, string> = {};
    const telemetry: string[] = [];
    const incidents: string[] = [];
    const episodes: string[] = [];
    const names = readdirSync(this.parts).filter((name) => name.endsWith('.json.gz'));
    for (const name of names.sort()) {
      const part = JSON.parse(gunzipSync(readFileSync(join(this.parts, name))).toString('utf8')) as {
        description: EpisodeDescription;
        telemetry: TelemetryRecord[];
      };
      // Found here, not when recorded: the definition of failure can then be applied anew to what was measured.
      const description = { ...part.description, slo_ms: failureOf(part.description.plan).sloMs };
      const own = incidentsOf(description);
      const spoilt = spoiltBy(description, own);
      if (spoilt) {
        leftOut[description.plan.number] = spoilt;
        continue;
      }
      kept.push(description.plan.number);
      telemetry.push(...part.telemetry.map((r) => JSON.stringify(r)));
      incidents.push(...own.map((i) => JSON.stringify(i)));
      episodes.push(JSON.stringify(description));
    }
    const text = (lines: string[]): string => lines.map((line) => `${line}\n`).join('');
    writeFileSync(join(this.dir, 'telemetry.ndjson.gz'), gzipSync(text(telemetry), { level: 9 }));
    writeFileSync(join(this.dir, 'incidents.ndjson'), text(incidents));
    writeFileSync(join(this.dir, 'episodes.ndjson'), text(episodes));
    return { kept, leftOut };
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
