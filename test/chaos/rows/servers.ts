/** T2, T11: Temporal, the control plane, Postgres and Kafka are killed at random while failovers are under way, with their data kept. */
import type { Row } from '../row';
import type { StoryName } from '../stories';

const courses: StoryName[] = ['there-and-back', 'death', 'abort', 'ordered', 'there-and-back'];

const killedParts = [
  { part: 'temporal', tests: 'T2' },
  { part: 'control-plane', tests: 'T11' },
  { part: 'postgres', tests: 'T11' },
  { part: 'kafka', tests: 'T11' },
] as const;

export function serverRows(seed: number): Row[] {
  return killedParts.flatMap(({ part, tests }) =>
    courses.map((story, n): Row => ({
      title: `${tests} ${part} killed again and again (seed ${seed}), failover ${n + 1}: ${story}`,
      group: `${part} killed`,
      killed: part,
      story,
      options: { limitS: 300, publishes: part === 'kafka' },
    })),
  );
}
