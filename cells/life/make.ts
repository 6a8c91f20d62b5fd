/** Makes a synthetic cell, for a failover or for the pool: takes it up, brings it up, records where it answers. */
import { isIP } from 'node:net';
import { RefusedError, type CellRecord, type StartedFrom } from '../../blueprints/records';
import { poolOwner } from '../../workflows/messages';
import type { ObservedCell } from '../provider';
import { beating, type Heartbeat } from './heartbeat';
import type { CellMakings } from './makings';
import { addressesOf, CellNotReadyError, untilReady, whyOf } from './ready';

export interface AcquiredSyntheticCell {
  cell: CellRecord;
  /** True if nothing had to be started: an idle cell, or one that this failover had already. */
  reused: boolean;
}

export async function acquireCell(
  makings: CellMakings,
  { failover, source }: { failover: string; source: string },
  heartbeat: Heartbeat,
  signal: AbortSignal | undefined,
): Promise<AcquiredSyntheticCell> {
  const { store } = makings;
  const sourceCell = await store.cell(source);
  if (!sourceCell) throw new RefusedError(`cell ${source} is not known, so nothing can stand in for it`);
  const { cell, from } = await store.acquireSyntheticCell({ failover, source, blueprint: sourceCell.blueprint });
  const { provider } = await makings.of(cell);
  heartbeat(`synthetic cell ${cell.name} (${from})`);

  const found = await provider.observe(cell.name);
  const stands = found.phase === 'ready' || found.phase === 'idle';
  // A cell that died at rest, a start that failed, or what another life left under this name. What still runs of it
  // has a past that we do not know, and nobody is served by it yet: make it anew. Once armed, it is only mended.
  // After a crash the row is ours already; what was never given to us, nor taken from the pool, was not made by us.
  const isOurs = [failover, poolOwner(cell.service)].includes(found.owner);
  const isOfAnother = from === 'created' || (from === 'owned' && !isOurs);
  const isSpoilt = found.phase === 'failed' || (isOfAnother && found.phase !== 'absent');
  const isMadeAnew = isSpoilt && cell.state === 'provisioning';
  if (isMadeAnew) {
    heartbeat(`${cell.name} is made anew (${whyOf(found)})`);
    await beating(heartbeat, `ending what is left of ${cell.name}`, provider.destroy(cell.name));
  }
  const startedFrom = isMadeAnew ? 'nothing' : startOf(cell, found);
  return { cell: await bringUp(makings, cell, failover, { startedFrom, heartbeat, signal }), reused: stands };
}

/** Nothing is ended here: a failover may have taken it by now. */
export async function makeForPool(
  makings: CellMakings,
  cell: CellRecord,
  heartbeat: Heartbeat,
  signal: AbortSignal | undefined,
): Promise<CellRecord> {
  await makings.store.updateCell(cell.name, {}, cell.owner);
  const found = await makings.observe(cell);
  if (found.phase === 'failed') throw new CellNotReadyError(`cell ${cell.name} failed: ${whyOf(found)}`);
  if (found.phase !== 'absent' && found.owner !== cell.owner)
    throw new CellNotReadyError(`something that ${found.owner || 'nobody'} owns is there as ${cell.name} already`);
  return bringUp(makings, cell, cell.owner!, { startedFrom: startOf(cell, found), heartbeat, signal });
}

/** From where bringing it up starts its processes; undefined where they run, or another attempt has begun to start them. */
function startOf({ rest }: CellRecord, { phase }: ObservedCell): StartedFrom | undefined {
  if (phase === 'absent') return 'nothing';
  return phase === 'idle' && rest?.how === 'stopped' ? 'stopped' : undefined;
}

interface BringUp {
  startedFrom: StartedFrom | undefined;
  heartbeat: Heartbeat;
  signal: AbortSignal | undefined;
}

async function bringUp(
  makings: CellMakings,
  cell: CellRecord,
  owner: string,
  { startedFrom, heartbeat, signal }: BringUp,
): Promise<CellRecord> {
  const { store } = makings;
  const { blueprint, provider } = await makings.of(cell);
  const beganAt = performance.now();
  // Also where it stands already: the provider has to learn the new owner, and one that lies idle is woken.
  await beating(heartbeat, `asking provider ${provider.kind} for ${cell.name}`, makings.begin(cell, owner));
  const ready = await untilReady(provider, cell.name, blueprint, heartbeat, signal);
  const readyMs = performance.now() - beganAt;
  refuseWhatCannotBeServed(cell, ready, await store.cells(cell.service));
  const started = startedFrom && { started: { from: startedFrom, readyMs } };
  return store.updateCell(cell.name, { instances: addressesOf(ready), rest: null, ...started }, owner);
}

/** What the store keeps is published to the proxies: one false address would hold up every change of the service. */
function refuseWhatCannotBeServed(
  { name }: CellRecord,
  { instances }: ObservedCell,
  ofService: readonly CellRecord[],
): void {
  const others = ofService.filter((other) => other.name !== name && other.state !== 'retired');
  for (const { name: instance, address, port } of instances) {
    const said = `the provider says that ${instance} answers on ${address}:${port}`;
    if (!isIP(address)) throw new CellNotReadyError(`${said}, which is no IP address`);
    if (!Number.isInteger(port) || port < 1 || port > 65_535) throw new CellNotReadyError(`${said}, which is no port`);
    const of = others.find((other) => other.instances.some((i) => i.address === address && i.port === port));
    if (of) throw new CellNotReadyError(`${said}, where ${of.name} answers`);
  }
}
