/** Telemetry of a cell that leaks, lets go and leaks again: made up, or recorded from the reference service. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { seededRandom } from '../../lab/random';
import { packageRoot } from '../../package-root';
import type { Sample } from '../../prediction/contracts';
import { isMetricName, type MetricName } from '../../prediction/metrics';

/** One cell's telemetry, and when a leak in it began and was let go. */
export interface LeakStory {
  name: string;
  samples: readonly Sample[];
  /** Milliseconds since the epoch. */
  leaks: readonly { beganMs: number; letGoMs: number | null }[];
}

const mib = 1024 * 1024;
export const heapLimitBytes = 64 * mib;
/** As in the demo. */
export const leakBytesPerSecond = 1.2 * mib;
const startMs = Date.parse('2026-11-22T06:40:00Z');
const cell = 'a';

/**
 * What becomes of what the first leak held: V8 collects it at once or only when the heap grows again, which is when the
 * next leak begins; or the process is started anew.
 */
export const lettingsGo = ['collected at once', 'collected late', 'restart'] as const;
export type LettingGo = (typeof lettingsGo)[number];

export interface Plan {
  quietS: number;
  /** How long the first leak lasts. 0: there is none before the second. */
  firstLeakS: number;
  /** From the end of the first leak to the beginning of the second. */
  gapS: number;
  how: LettingGo;
  seed?: number;
  /** Garbage that piles up on top of what is in use, and how often it is collected. @default 3 MiB in 5 s */
  garbage?: { bytes: number; everyS: number };
}

/** Seconds in which a process that is started anew says nothing. */
const silentS = 3;

/** A cell of two instances: `plan.quietS` of rest, the first leak, the gap, and a second leak to the limit. */
export function madeUp(plan: Plan): LeakStory {
  const { quietS, firstLeakS, gapS, how, seed = 1 } = plan;
  const { bytes, everyS } = plan.garbage ?? { bytes: 3 * mib, everyS: 5 };
  const random = seededRandom(seed);
  const about = (value: number, spread: number): number => value * (1 + spread * (2 * random() - 1));
  const letGoS = quietS + firstLeakS;
  const secondS = firstLeakS === 0 ? quietS : letGoS + gapS;
  const collectedS = how === 'collected late' ? secondS + 1 : letGoS;
  const samples: Sample[] = [];
  for (let s = 0; ; s++) {
    const first = s < collectedS ? Math.min(Math.max(0, s - quietS), firstLeakS) : 0;
    const leaked = (first + Math.max(0, s - secondS)) * leakBytesPerSecond;
    const inUse = 8.5 * mib + leaked;
    if (inUse > heapLimitBytes) break;
    const isRestarting = how === 'restart' && firstLeakS > 0 && s >= letGoS && s < letGoS + silentS;
    for (const instance of ['a-1', 'a-2']) {
      const phase = instance === 'a-1' ? 0 : 2;
      const garbage = (((s + phase) % everyS) / everyS) * bytes;
      const pressure = inUse / heapLimitBytes;
      const bornS = how === 'restart' && firstLeakS > 0 && s >= letGoS ? letGoS : -5;
      const values: Partial<Record<MetricName, number>> = {
        'heap.used_bytes': Math.min(heapLimitBytes, about(inUse + garbage, 0.01)),
        'heap.limit_bytes': heapLimitBytes,
        'memory.used_bytes': about(55 * mib + leaked, 0.01),
        'cpu.utilization': about(0.02 + 0.02 * pressure, 0.2),
        'gc.share': about(0.002 + (pressure > 0.2 ? 0.03 * pressure : 0), 0.5),
        'event_loop.delay_p99_s': about(0.012 + 0.01 * pressure, 0.1),
        'http.request_rate': about(30, 0.05),
        'http.error_ratio': 0,
        'http.latency_p50_s': about(0.0375, 0.01),
        'http.latency_p99_s': about(0.05, 0.02),
        'http.in_flight': 1 + Math.round(random()),
        'fd.used': 26,
        'fd.limit': 20_000,
        'process.uptime_s': s - bornS,
        'process.restarts': bornS > 0 ? 1 : 0,
      };
      if (isRestarting) continue;
      for (const [metric, value] of Object.entries(values)) {
        samples.push({ cell, instance, atMs: startMs + 1000 * s, metric: metric as MetricName, value });
      }
    }
  }
  const second = { beganMs: startMs + 1000 * secondS, letGoMs: null };
  const firstLeak = { beganMs: startMs + 1000 * quietS, letGoMs: startMs + 1000 * letGoS };
  const name = firstLeakS === 0 ? 'no leak before' : `${how}, ${gapS} s between`;
  return { name, samples, leaks: firstLeakS === 0 ? [second] : [firstLeak, second] };
}

/**
 * Real runs of `lab/reference-service.ts` (two instances, 64 MiB of heap, 30 requests a second each) under the demo's leak:
 * its OpenTelemetry records and the host agent's as decoded, a load average of 8 to 15 on two cores meanwhile.
 */
const recordings = [
  {
    file: 'let-go-10s.ndjson.gz',
    leaks: [
      ['2026-11-23T15:21:08.987Z', '2026-11-23T15:21:31.036Z'],
      ['2026-11-23T15:21:41.079Z', null],
    ],
  },
  {
    file: 'let-go-20s.ndjson.gz',
    leaks: [
      ['2026-11-23T15:12:46.043Z', '2026-11-23T15:13:08.056Z'],
      ['2026-11-23T15:13:28.120Z', null],
    ],
  },
  {
    file: 'let-go-35s.ndjson.gz',
    leaks: [
      ['2026-11-23T15:18:31.384Z', '2026-11-23T15:18:51.410Z'],
      ['2026-11-23T15:19:26.534Z', null],
    ],
  },
] as const;

interface Line {
  cell: string;
  instance: string;
  ts: string;
  metrics: Record<string, number>;
}

export function recorded(): LeakStory[] {
  return recordings.map(({ file, leaks }) => {
    const text = gunzipSync(readFileSync(join(packageRoot, 'bench', 'second-leak', file))).toString('utf8');
    const lines = text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Line);
    const samples = lines.flatMap(({ instance, ts, metrics, cell: of }) =>
      Object.entries(metrics).flatMap(([metric, value]) =>
        isMetricName(metric) ? [{ cell: of, instance, atMs: Date.parse(ts), metric, value }] : [],
      ),
    );
    const times = leaks.map(([began, letGo]) => ({
      beganMs: Date.parse(began),
      letGoMs: letGo === null ? null : Date.parse(letGo),
    }));
    return { name: `recorded, ${file.replace(/^let-go-(\d+)s.*/, '$1')} s between`, samples, leaks: times };
  });
}
