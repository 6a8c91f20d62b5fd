/** Waits until every instance of a cell that a provider runs is ready, and says where they answer. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { BlueprintVersion } from '../../blueprints/records';
import type { Instance } from '../../blueprints/schema';
import type { CellProvider, ObservedCell } from '../provider';
import type { Heartbeat } from './heartbeat';

/** Making the cell failed in a way that a later attempt may not meet. */
export class CellNotReadyError extends Error {
  override readonly name = 'CellNotReadyError';
}

const pollMs = 100;
/** What an observation may take beyond the blueprint's own time before waiting is given up. */
const slackMs = 5_000;

/** Waits for every instance. Shared with declared cells that a provider runs. */
export async function untilReady(
  provider: CellProvider,
  cell: string,
  blueprint: BlueprintVersion,
  heartbeat: Heartbeat = () => undefined,
  signal?: AbortSignal,
): Promise<ObservedCell> {
  const { timeoutS } = blueprint.spec.readiness;
  for (const deadline = Date.now() + timeoutS * 1000 + slackMs; ; await sleep(pollMs, undefined, { signal })) {
    const observed = await provider.observe(cell);
    if (observed.phase === 'ready') return observed;
    if (observed.phase === 'failed') throw new CellNotReadyError(`cell ${cell} failed: ${whyOf(observed)}`);
    if (Date.now() > deadline)
      throw new CellNotReadyError(`cell ${cell} is still ${observed.phase} after ${timeoutS} s: ${whyOf(observed)}`);
    const ready = observed.instances.filter(({ phase }) => phase === 'ready').length;
    heartbeat(`${cell}: ${ready} of ${observed.instances.length} instances ready`);
  }
}

export function addressesOf({ instances }: ObservedCell): Instance[] {
  return instances.map(({ name, address, port }) => ({ name, address, port }));
}

/** What its instances say is wrong, else its phase. */
export function whyOf({ phase, instances }: ObservedCell): string {
  const reasons = instances
    .filter(({ reason }) => reason !== undefined)
    .map(({ name, reason }) => `${name}: ${reason}`);
  return reasons.join('; ') || phase;
}
