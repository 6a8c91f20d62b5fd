/** Healthy telemetry of real machines, the Server Machine Dataset, for false alarms; its anomalies are no failures. */
import { readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { MetricName } from '../../prediction/metrics';
import type { IncidentSpan } from './contracts';
import { readLinesOf } from './lines';
import { SampleLog } from './sample-log';
import { seriesOf, type RecordedCell } from './series';

/**
 * Columns whose meaning is that of a canonical metric. All are scaled to 0..1 by the range each had on its machine, and
 * the range is not known; `scale` puts the largest value where such a machine may have had it. Limits are not known, and
 * none is claimed. Columns that fit nothing (packets, swap, loads over 5 and 15 minutes, segment counts) are left out.
 */
export const smd8Columns: Readonly<Record<string, { metric: MetricName; scale: number; why: string }>> = {
  cpu_r: { metric: 'cpu.utilization', scale: 1, why: 'CPU use; a share already, stretched to its own range' },
  mem_u: { metric: 'memory.used_bytes', scale: 16e9, why: 'memory in use, as of a machine of 16 GB; no limit is said' },
  disk_u: { metric: 'disk.utilization', scale: 1, why: 'share of time the disk was busy' },
  disk_svc: { metric: 'disk.write_latency_s', scale: 0.05, why: 'mean service time of a disk request, up to 50 ms' },
  disk_wb: { metric: 'disk.write_rate', scale: 100e6, why: 'bytes written, up to 100 MB a second' },
  eth1_fi: { metric: 'network.receive_rate', scale: 100e6, why: 'bytes received, up to 100 MB a second' },
  eth1_fo: { metric: 'network.transmit_rate', scale: 100e6, why: 'bytes sent, up to 100 MB a second' },
  retransegs: { metric: 'network.retransmit_ratio', scale: 0.05, why: 'segments sent again, up to one in twenty' },
  load_1: { metric: 'queue.depth', scale: 32, why: 'processes that run or wait, up to 32: the queue before the CPUs' },
  passive_opens: { metric: 'http.request_rate', scale: 1000, why: 'connections accepted: what stands for requests' },
  curr_estab: { metric: 'http.in_flight', scale: 2000, why: 'connections open at once, up to 2,000' },
};

const stepMs = 60_000;
/** A multiple of every step; the dataset has no dates. */
const epochMs = Date.UTC(2020, 0, 1);
/** Minutes beside an anomaly that are no healthy ground either: its label has no exact edges. */
const asideMinutes = 60;

/** `labelled`: the half that people looked through; `unlabelled`: the half before it. The other one is not watched. */
export type Smd8Half = 'labelled' | 'unlabelled';

export async function readSmd8(dir: string, half: Smd8Half = 'labelled'): Promise<RecordedCell[]> {
  const files = readdirSync(dir)
    .filter((name) => /^machine-.*\.csv(\.gz|\.br)?$/.test(name))
    .sort();
  if (files.length === 0) throw new Error(`${dir}: no machine-*.csv, .csv.gz or .csv.br there.`);
  const cells: RecordedCell[] = [];
  for (const file of files) cells.push(await readMachine(join(dir, file), half));
  return cells;
}

/** What lies outside of the half that is watched only fills the windows. */
async function readMachine(file: string, half: Smd8Half): Promise<RecordedCell> {
  const cell = `smd-${basename(file).replace(/\.csv.*$/, '')}`;
  const log = new SampleLog(cell);
  let columns: { at: number; metric: MetricName; scale: number }[] = [];
  let anomalyAt = -1;
  let fromMs = Infinity;
  let lastMs = -Infinity;
  const anomalous: number[] = [];
  for await (const { number, bytes } of readLinesOf(file)) {
    const fields = bytes.toString('utf8').split(',');
    if (number === 1) {
      columns = fields.flatMap((name, at) => {
        const known = smd8Columns[name];
        return known ? [{ at, ...known }] : [];
      });
      anomalyAt = fields.indexOf('anomaly');
      if (fields[0] !== 'minute' || anomalyAt < 0 || columns.length === 0) {
        throw new Error(
          `${file}:1: expected the columns minute, anomaly and some of ${Object.keys(smd8Columns).join(', ')}`,
        );
      }
      continue;
    }
    const minute = Number(fields[0]);
    if (!Number.isInteger(minute))
      throw new Error(`${file}:${number}: minute is "${fields[0]}", expected a whole number`);
    const atMs = epochMs + minute * stepMs;
    lastMs = atMs;
    const label = fields[anomalyAt];
    if ((label !== '-1') === (half === 'labelled')) fromMs = Math.min(fromMs, atMs);
    if (label === '1') anomalous.push(atMs);
    for (const { at, metric, scale } of columns) {
      const value = Number(fields[at]);
      if (fields[at] === '' || !Number.isFinite(value)) continue;
      log.add({ cell, instance: cell, atMs, metric, value: value * scale });
    }
  }
  const watched = { fromMs, toMs: lastMs };
  return seriesOf(log, { stepMs, incidents: anomaliesOf(cell, anomalous), watched });
}

/** As incidents that nobody could foretell, with an hour before and after them that is not judged. */
function anomaliesOf(cell: string, minutes: readonly number[]): IncidentSpan[] {
  const spans: IncidentSpan[] = [];
  for (const atMs of minutes) {
    const last = spans[spans.length - 1];
    if (last && atMs <= last.recoveredMs + stepMs) last.recoveredMs = atMs;
    else {
      const faultStartMs = atMs - asideMinutes * stepMs;
      spans.push({ cell, fault: 'uncertain', faultStartMs, onsetMs: atMs, recoveredMs: atMs, predictable: false });
    }
  }
  return spans;
}
