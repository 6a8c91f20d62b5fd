/** The data card of a recording, written from the recording itself. */
import type { EpisodeDescription, IncidentRecord } from './episode-file';

export interface CardInput {
  episodes: readonly EpisodeDescription[];
  incidents: readonly IncidentRecord[];
  leftOut: ReadonlyMap<number, string>;
  /** Telemetry records: one per instance and step. */
  samples: number;
  command: string;
}

const countBy = <T>(values: readonly T[], key: (value: T) => string): [string, number][] => {
  const counts = new Map<string, number>();
  for (const value of values) counts.set(key(value), (counts.get(key(value)) ?? 0) + 1);
  return [...counts].sort(([a], [b]) => (a < b ? -1 : 1));
};

const quantile = (sorted: readonly number[], share: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? NaN;

const table = (head: string[], rows: (string | number)[][]): string =>
  [head, head.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');

const hours = (seconds: number): string => `${(seconds / 3600).toFixed(2)} h`;

export function dataCard({ episodes, incidents, leftOut, samples, command }: CardInput): string {
  const cells = episodes.flatMap((episode) => episode.cells.map((cell) => ({ episode, cell })));
  const faults = cells.flatMap(({ cell }) => cell.faults);
  const lookAlikes = cells.flatMap(({ cell }) => cell.look_alikes);
  const byFault = incidents.filter(({ fault }) => fault !== 'load' && fault !== 'unexplained');
  const failing = new Set(byFault.map(({ cell }) => cell));
  const failingEpisodes = episodes.filter((e) => e.cells.some(({ cell }) => failing.has(cell))).length;
  const secondsOf = ({ from, ended }: EpisodeDescription): number => (Date.parse(ended) - Date.parse(from)) / 1000;
  const allS = cells.reduce((sum, { episode }) => sum + secondsOf(episode), 0);
  const endOf = new Map(cells.map(({ episode, cell }) => [cell.cell, Date.parse(episode.ended)]));
  const failingS = incidents.reduce((sum, { cell, onset, recovered }) => {
    const untilMs = recovered === null ? (endOf.get(cell) ?? Date.parse(onset)) : Date.parse(recovered);
    return sum + (untilMs - Date.parse(onset)) / 1000;
  }, 0);
  const incubation = (of: readonly IncidentRecord[]): number[] =>
    of.map((i) => (Date.parse(i.onset) - Date.parse(i.fault_start)) / 1000).sort((a, b) => a - b);
  const modes = [...new Set(faults.map(({ name }) => name))].sort();
  const spread = (values: number[]): (string | number)[] =>
    values.length === 0 ? ['', '', ''] : [0.1, 0.5, 0.9].map((share) => quantile(values, share).toFixed(1));

  return `# A recording of the chaos lab

Telemetry of real processes of ${new Set(episodes.map((e) => e.service)).size} reference services under real limits and open-loop load, with faults and harmless events that
look like them. Failures were measured by the callers; nothing here is simulated.

- **Episodes:** ${episodes.length}, of which ${failingEpisodes} saw a failure of a fault; ${cells.length} cells; ${samples} telemetry records.
- **Variants of service and workload:** ${new Set(episodes.map((e) => e.variant)).size}. **Steps:** ${countBy(
    episodes,
    (e) => `${e.step_ms} ms`,
  )
    .map(([step, n]) => `${step} (${n} episodes)`)
    .join(', ')}.
- **Time:** ${hours(allS)} of cells, ${hours(failingS)} of it failing.
- **Look-alikes:** ${lookAlikes.length} events, ${(lookAlikes.length / Math.max(1, failingEpisodes)).toFixed(1)} per failing episode.
- **Without warning:** ${byFault.filter((i) => !i.predictable).length} of ${byFault.length} failures of faults (\`predictable: false\`).
- **Failures without a fault at work:** ${incidents.length - byFault.length} (\`load\`, \`unexplained\`).
- **Telemetry lost on purpose:** ${cells.reduce((sum, { cell }) => sum + cell.outages.length, 0)} outages of the collector while the cell was well or its fault grew; single metrics besides.
- **Left out:** ${leftOut.size} episodes that the recording machine spoilt by being starved.
- **Made by** \`${command}\`
- **Licence:** as the project. There are no persons' data in it.

A cell fails with the first of three bad steps in a row: its process is dead, 5 % of the requests of the last five seconds failed, or
the p99 is at the objective (five times the variant's p99 when well; \`slo_ms\`). A step in which the load itself was late says
nothing. The fault at work in the cell is named as the cause. Modes that the catalogue has and this recording does not:
certificate expiry, which is a rule and nothing to learn.

## Failure modes
${table(
  ['mode', 'cells with it', 'failures', 'fault to failure p10', 'p50', 'p90 (s)'],
  modes.map((mode) => {
    const own = byFault.filter(({ fault }) => fault === mode);
    return [mode, faults.filter(({ name }) => name === mode).length, own.length, ...spread(incubation(own))];
  }),
)}

All failures: p10, p50 and p90 of ${spread(incubation(byFault)).join(', ')} s from fault to failure.

## Services
${table(
  ['service', 'episodes', 'cells', 'failures of faults', 'without a fault at work'],
  countBy(episodes, (e) => e.service).map(([service, count]) => {
    const names = new Set(cells.filter(({ episode }) => episode.service === service).map(({ cell }) => cell.cell));
    const own = incidents.filter(({ cell }) => names.has(cell));
    const ofFaults = own.filter((i) => byFault.includes(i)).length;
    return [service, count, names.size, ofFaults, own.length - ofFaults];
  }),
)}

## Look-alikes
${table(
  ['event', 'count'],
  countBy(lookAlikes, ({ name }) => name),
)}

## Files
- \`telemetry.ndjson.br\`: one record per instance and step in the project's telemetry format, ordered by episode, cell and time.
- \`incidents.ndjson\`: every failure, in the project's incident format.
- \`episodes.ndjson\`: what was deployed and ordered, episode by episode; seconds count from \`load_started\`.
- \`measured.ndjson.br\`: what callers measured, per cell and step, by columns.
`;
}
