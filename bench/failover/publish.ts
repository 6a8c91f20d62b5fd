/** What is kept of a run that is published: the runs without their stories, and the texts that are made from them. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../package-root';
import { fullReport, provenance, shortTable } from './report';
import type { RunResult } from './result';
import { rowsOf } from './statistics';

export const publishedRuns = join(packageRoot, 'bench', 'results', 'failover.ndjson');
export const publishedTable = join(packageRoot, 'docs', 'failover-table.md');
const readme = join(packageRoot, 'README.md');
const marks = {
  begin: '<!-- begin: npm run bench:failover -- --publish -->',
  end: '<!-- end: npm run bench:failover -- --publish -->',
};

const introduction = `# What failing costs callers, arm beside arm

Written by \`npm run bench:failover -- --publish\` from \`bench/results/failover.ndjson\`; a test keeps it equal to them. Run it yourself:

\`\`\`sh
npm run bench:failover                                                    # nine faults, six arms, five seeds: a good hour
npm run bench:failover -- --faults leak-to-death --arms a,e --seeds 1     # one fault, two arms: three minutes
\`\`\`

Two cells at 60 % of their capacity, so that one alone would need 120 % of its own; callers that come at random times and do not wait for one another; the same faults at the same second, the same
arrivals and the same seeds for every arm. All arms of a fault and seed run at the same time, so that what the machine does hits them alike. The fault strikes the first cell 20 s after the load began;
its failure is planned for 30 to 42 s later. Services and faults are the chaos lab's. Runs whose callers suffered before the fault (more than 1 % failed or late, over all arms) are broken off and begun
anew: there the machine would have been measured.

- **(a)** Envoy's outlier detection as it comes (but free to eject more than its 10 %, of which no host of so few is ever one), health checks every 500 ms, two retries with a budget.
- **(b)** never ejects the last cell, sends to the host with the fewest requests in flight, sheds above what the cells but one can answer in half of the objective, retries at another host.
- **(c)** as (b), with a third cell that is always on; **(d)** as (b), a third cell is made when Envoy gives up a host or 5 % of the requests are bad for three seconds.
- **(e)** Understudy itself: the shipped model, real Kafka, Temporal, control plane and workers, policy as it comes but for \`autonomy: act\`. **(f)** the same, told by a signal from 45 s before what fails and when.
- A cell that has died stays dead; each cell has a store of its own behind it where its service needs one, and a synthetic cell uses its source's.
`;

/** The page in docs/. */
export function tablePage(runs: readonly RunResult[]): string {
  return `${introduction}\n${fullReport(runs)}`.trimEnd() + '\n';
}

/** The README with its short table made anew. */
export function withShortTable(text: string, runs: readonly RunResult[]): string {
  const from = text.indexOf(marks.begin);
  const to = text.indexOf(marks.end);
  if (from < 0 || to < from)
    throw new Error(`README.md has no place for the table between ${marks.begin} and ${marks.end}`);
  return `${text.slice(0, from)}${marks.begin}\n${shortTable(rowsOf(runs)).join('\n')}\n\n${provenance(runs).join('\n')}\n${text.slice(to)}`;
}

export function readRunLines(text: string): RunResult[] {
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as RunResult);
}

/** Without what only explains a single run. */
function kept(run: RunResult): RunResult {
  const arms = Object.fromEntries(
    Object.entries(run.arms).map(([name, arm]) => [
      name,
      arm.understudy ? { ...arm, understudy: { ...arm.understudy, story: [], riskPerS: [] } } : arm,
    ]),
  );
  return { ...run, arms };
}

export function publish(runs: readonly RunResult[]): void {
  writeFileSync(publishedRuns, runs.map((run) => `${JSON.stringify(kept(run))}\n`).join(''));
  writeFileSync(publishedTable, tablePage(runs));
  writeFileSync(readme, withShortTable(readFileSync(readme, 'utf8'), runs));
}
