/**
 * Reads recordings of the first kind: one service, two instances, a heap leak. Newer ones are of the chaos lab
 * (lab/chaos/recording-folder.ts).
 */
import { createReadStream, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { createGunzip } from 'node:zlib';
import type { Sample } from '../prediction/contracts';
import { isMetricName, type MetricName } from '../prediction/metrics';
import type { MeasuredSecond } from './onset';

export interface Incident {
  cell: string;
  fault: string;
  fault_start: string;
  onset: string;
  recovered: string | null;
  predictable: boolean;
}

/** What was planned, as far as anybody still asks. Times in seconds after the load began. */
export interface RecordedPlan {
  number: number;
  seed: number;
  cell: string;
  kind: 'leak-to-death' | 'leak-that-stops' | 'healthy';
  heapLimitMib: number;
  serviceMs: number;
  leakOrders: { atS: number; instance: number; bytesPerSecond: number; shape: string; release: boolean }[];
  durationS: number;
}

export interface EpisodeDescription {
  plan: RecordedPlan;
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
