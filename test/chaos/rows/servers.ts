/** T2, T11: Temporal, the control plane, Postgres and Kafka go away at random while failovers are under way, with their data kept. */
import type { Outage } from '../outage';
import type { FailoverRow } from '../row';
import type { StoryName } from '../stories';

const courses: StoryName[] = ['there-and-back', 'death', 'abort', 'ordered', 'there-and-back'];

const outages: Omit<Outage, 'seed'>[] = [
  // Four times up to five kills: the workflow engine is what all the rest hangs on.
  { part: 'temporal', how: 'killed' },
  { part: 'temporal', how: 'killed' },
  { part: 'temporal', how: 'killed' },
  { part: 'temporal', how: 'killed' },
  { part: 'temporal', how: 'stopped' },
  { part: 'control-plane', how: 'killed' },
  { part: 'postgres', how: 'killed' },
  { part: 'kafka', how: 'killed' },
];

export function serverRows(seed: number): FailoverRow[] {
  return outages.flatMap(({ part, how }, n) => {
    const outage = { part, how, seed: seed + n };
    const what = how === 'killed' ? 'killed again and again' : 'stopped for 15 s';
    const group = `${part} ${what} (seed ${outage.seed})`;
    return courses.map((story, i): FailoverRow => ({
      title: `${part === 'temporal' ? 'T2' : 'T11'} ${part} ${what} (seed ${outage.seed}), failover ${i + 1}: ${story}`,
      group,
      outage,
      story,
      options: { publishes: part === 'kafka' },
    }));
  });
}
