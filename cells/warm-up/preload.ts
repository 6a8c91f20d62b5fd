/** Warm-up step `preload`: lets every instance take over what a peer has; the next peer is asked if one cannot give it. */
import { request, type HttpAnswer, type Reached } from '../http';
import type { StepFinding, StepOf, WarmUp } from './step';

export async function preload(step: StepOf<'preload'>, { instances, peers, progress }: WarmUp): Promise<StepFinding> {
  if (peers.length === 0) {
    const obstacle = 'preload: no healthy peer to load from';
    return { text: obstacle, obstacles: [obstacle] };
  }
  const taken = await Promise.all(
    instances.map(async (instance, index) => {
      let failure = '';
      for (let attempt = 0; attempt < peers.length; attempt += 1) {
        // Each instance begins with another peer, so that no peer carries the whole preload.
        const peer = peers[(index + attempt) % peers.length]!;
        try {
          const entries = await take(step, instance, peer);
          progress?.(`${instance.name} preloaded ${entries} entries from ${peer.name}`);
          if (entries >= step.minEntries) return { entries, failure: undefined };
          failure = `${entries} entries from ${peer.name}, at least ${step.minEntries} are needed`;
        } catch (error) {
          failure = `from ${peer.name}: ${(error as Error).message}`;
        }
      }
      return { entries: 0, failure: `preload of ${instance.name}: ${failure}` };
    }),
  );
  const entries = taken.reduce((sum, one) => sum + one.entries, 0);
  return {
    text: `${entries} entries preloaded`,
    obstacles: taken.flatMap(({ failure }) => failure ?? []),
    entries,
  };
}

async function take({ path, timeoutS }: StepOf<'preload'>, instance: Reached, peer: Reached): Promise<number> {
  const body = { from: `${peer.address}:${peer.port}` };
  return entriesOf(await request(instance, path, { method: 'POST', body, timeoutMs: timeoutS * 1000 }));
}

function entriesOf({ status, body }: HttpAnswer): number {
  if (status < 200 || status > 299) throw new Error(`answered ${status} ${body.slice(0, 200)}`);
  let entries: unknown;
  try {
    entries = (JSON.parse(body) as { entries?: unknown } | null)?.entries;
  } catch {
    entries = undefined;
  }
  if (typeof entries !== 'number' || !Number.isInteger(entries) || entries < 0)
    throw new Error(`answered ${body.slice(0, 100)} where {"entries": n} was expected`);
  return entries;
}
