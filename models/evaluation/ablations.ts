/** What the model loses when something is taken from its telemetry: the same cells, replayed with less. */
import { seededRandom } from '../../lab/random';
import type { Sample } from '../../prediction/contracts';
import { metricNames } from '../../prediction/metrics';
import type { DetectorFigures } from './detector-figures';
import { metricsOfFault } from './fault-metrics';
import type { RecordedCell } from './series';

export interface Ablation {
  name: string;
  /** Beginnings of the names of the metrics that are taken away; unset where something else is. */
  removes?: readonly string[];
  change: (cell: RecordedCell, index: number) => RecordedCell;
}

export interface AblationResult {
  name: string;
  recall: number | null;
  /** Points of recall lost against all telemetry. */
  lost: number | null;
  falseAlarmsPerCellDay: number;
  alarmTimeShare: number;
  prAuc: number | null;
  /** Incidents of faults that other metrics show, and how many of them are caught without and with everything. */
  elsewhere: { incidents: number; caught: number; caughtWithAll: number } | null;
}

/** How many incidents of faults that none of these metrics shows were caught. */
export function caughtElsewhere(removes: readonly string[], { verdicts }: Pick<DetectorFigures, 'verdicts'>) {
  const isShownBy = (fault: string): boolean =>
    [...(metricsOfFault(fault) ?? [])].some((metric) => removes.some((prefix) => metric.startsWith(prefix)));
  const others = verdicts.flatMap((v) => v.incidents).filter(({ incident }) => !isShownBy(incident.fault));
  return { incidents: others.length, caught: others.filter(({ outcome }) => outcome === 'caught').length };
}

const groups: Readonly<Record<string, readonly string[]>> = {
  'memory and heap': ['memory.', 'heap.', 'gc.'],
  CPU: ['cpu.', 'event_loop.'],
  latency: ['http.latency'],
  errors: ['http.error'],
  'requests in flight': ['http.in_flight'],
  dependencies: ['dependency.', 'retry.', 'cache.'],
  'pools, descriptors and queues': ['pool.', 'fd.', 'queue.'],
  disks: ['disk.'],
  network: ['network.'],
};

/** Share of a cell's metrics that is taken away, chosen anew for each cell. */
const missingShare = 0.3;

export const ablations: readonly Ablation[] = [
  ...Object.entries(groups).map(([name, prefixes]): Ablation => ({
    name: `without ${name}`,
    removes: prefixes,
    change: (cell) => without(cell, ({ metric }) => prefixes.some((prefix) => metric.startsWith(prefix))),
  })),
  {
    name: '30 % of metrics missing',
    change: (cell, index) => {
      const random = seededRandom(1000 + index);
      const dropped = new Set(metricNames.filter(() => random() < missingShare));
      return without(cell, ({ metric }) => dropped.has(metric));
    },
  },
  { name: 'no peers', change: (cell) => ({ ...cell, service: undefined }) },
  { name: 'no latency objective declared', change: (cell) => ({ ...cell, sloLatencyS: NaN }) },
  {
    name: 'no peers and no objective',
    change: (cell) => ({ ...cell, service: undefined, sloLatencyS: NaN }),
  },
];

function without(cell: RecordedCell, isDropped: (sample: Sample) => boolean): RecordedCell {
  return {
    ...cell,
    *samples() {
      for (const sample of cell.samples()) if (!isDropped(sample)) yield sample;
    },
  };
}
