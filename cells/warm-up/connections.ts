/** Warm-up step `connections`: opens the connections all at once and uses each for one request. */
import { keptConnections, request } from '../http';
import { failureOf, requestTimeoutMs } from './measuring';
import type { StepFinding, StepOf, WarmUp } from './step';

export async function openConnections(
  { path, perInstance }: StepOf<'connections'>,
  { instances }: WarmUp,
): Promise<StepFinding> {
  const opened = await Promise.all(
    instances.map(async (instance) => {
      const agent = keptConnections(instance, perInstance);
      try {
        const call = () => request(instance, path, { timeoutMs: requestTimeoutMs, agent });
        const answers = await Promise.allSettled(Array.from({ length: perInstance }, call));
        const failures = answers.map(failureOf).filter((failure) => failure !== undefined);
        const text = `connections to ${instance.name}: ${failures.length} of ${perInstance} failed (${failures[0]})`;
        return { connections: answers.length - failures.length, obstacles: failures.length > 0 ? [text] : [] };
      } finally {
        agent.destroy();
      }
    }),
  );
  const connections = opened.reduce((sum, one) => sum + one.connections, 0);
  return {
    text: `${connections} connections opened`,
    obstacles: opened.flatMap(({ obstacles }) => obstacles),
    connections,
  };
}
