/** The Synthetic Cell Manager: gives a failover its synthetic cell, warms it, lays it to rest, retires it. */
import { isIP } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { RefusedError, type BlueprintVersion, type CellRecord } from '../blueprints/records';
import type { Instance } from '../blueprints/schema';
import type { ConfigurationStore } from '../blueprints/store';
import { driftOfCell } from './capture/capture-cell';
import type { Drift } from './capture/drift';
import { request } from './http';
import type { CellIdentities } from './identity/cell-identities';
import { IdentityKeeper } from './identity/keeper';
import {
  readBackProtection,
  type PlacedInstance,
  type ProtectionReader,
  type ProtectionReport,
} from './protection/read-back';
import type { CellProvider, ObservedCell } from './provider';
import { warmUp, type Reached, type WarmUpEvidence } from './warm-up';

/** Called with a sentence whenever something has gone on; throws or aborts to stop (a heartbeat of an activity). */
export type Heartbeat = (text: string) => void;

export interface AcquiredSyntheticCell {
  cell: CellRecord;
  /** True if nothing had to be started: an idle cell, or one that this failover had already. */
  reused: boolean;
}

/** Making the cell failed in a way that a later attempt may not meet. */
export class CellNotReadyError extends Error {
  override readonly name = 'CellNotReadyError';
}

const pollMs = 100;
/** What an observation may take beyond the blueprint's own time before acquiring is given up. */
const slackMs = 5_000;

export class SyntheticCellManager {
  private readonly providers: ReadonlyMap<string, CellProvider>;
  readonly identities: IdentityKeeper;

  constructor(
    private readonly store: ConfigurationStore,
    providers: CellProvider | readonly CellProvider[],
    /** Seconds for which a cell is kept that nobody renews. Left out: cells are made without a lease. */
    private readonly leaseS?: number,
    /** By kind of provider, where its cells are not processes of this machine. */
    private readonly protectionReaders: Readonly<Record<string, ProtectionReader>> = {},
    /** Who issues certificates. Left out: cells whose blueprint gives them an identity cannot be made. */
    identities?: CellIdentities,
  ) {
    this.identities = new IdentityKeeper(store, identities);
    const list = 'kind' in providers ? [providers] : providers;
    this.providers = new Map(list.map((provider) => [provider.kind, provider]));
  }

  /**
   * The failover's synthetic cell, all its instances ready and recorded. Asked again after a crash at any point it goes
   * on with the same cell. RefusedError: asking again will not help. CellNotReadyError: it may.
   */
  async acquire(
    { failover, source }: { failover: string; source: string },
    heartbeat: Heartbeat = () => undefined,
    signal?: AbortSignal,
  ): Promise<AcquiredSyntheticCell> {
    const sourceCell = await this.store.cell(source);
    if (!sourceCell) throw new RefusedError(`cell ${source} is not known, so nothing can stand in for it`);
    const { cell, from } = await this.store.acquireSyntheticCell({ failover, source, blueprint: sourceCell.blueprint });
    const { blueprint, provider } = await this.makingOf(cell);
    heartbeat(`synthetic cell ${cell.name} (${from})`);

    const found = await provider.observe(cell.name);
    const stands = found.phase === 'ready' || found.phase === 'idle';
    // A cell that died at rest, a start that failed, or what another life left under this name. What still runs of it
    // has a past that we do not know, and nobody is served by it yet: make it anew. Once armed, it is only mended.
    // After a crash the row is ours already; what was never given to us has not been made by us.
    const isOfAnother = from === 'created' || (from === 'owned' && found.owner !== failover);
    const isSpoilt = found.phase === 'failed' || (isOfAnother && found.phase !== 'absent');
    if (isSpoilt && cell.state === 'provisioning') {
      heartbeat(`${cell.name} is made anew (${whyOf(found)})`);
      await beating(heartbeat, `ending what is left of ${cell.name}`, provider.destroy(cell.name));
    }
    // Also where it stands already: the provider has to learn the new owner, and one that lies idle is woken.
    await beating(heartbeat, `asking provider ${provider.kind} for ${cell.name}`, this.begin(cell, failover));
    const ready = await untilReady(provider, cell.name, blueprint, heartbeat, signal);
    await this.refuseWhatCannotBeServed(cell, ready);
    const recorded = await this.store.updateCell(cell.name, { instances: addressesOf(ready) }, failover);
    return { cell: recorded, reused: stands };
  }

  /** Runs the blueprint's warm-up plan beside the service's healthy cells. Honest: see `warm` and `reasons`. */
  async warm(cell: CellRecord, heartbeat: Heartbeat = () => undefined, signal?: AbortSignal): Promise<WarmUpEvidence> {
    const { blueprint } = await this.makingOf(cell);
    // A warm-up that is repeated must not take an armed or serving cell back in its life.
    const isBefore = cell.state === 'provisioning' || cell.state === 'idle';
    const current = await this.store.updateCell(cell.name, isBefore ? { state: 'warming' } : {}, cell.owner);
    const run = warmUp({
      plan: blueprint.spec.warmUp,
      instances: await this.identities.reached(current),
      peers: await this.healthyPeers(current),
      progress: heartbeat,
      ...(signal && { signal }),
    });
    const evidence = await beating(heartbeat, `warming ${cell.name}`, run);
    const { protection, drift } = await this.lookAtSource(current, blueprint);
    const weaker = protection.weaker.map(({ instance, text }) => `weaker protection: ${instance} ${text}`);
    return {
      ...evidence,
      protection,
      drift: drift.map(({ path, text }) => `${path}: ${text}`),
      warm: evidence.warm && weaker.length === 0,
      reasons: [...weaker, ...evidence.reasons],
    };
  }

  /** Nobody's any more, but kept for the next failover, at next to no cost. Refused while the split gives it a share. */
  async rest(cell: CellRecord): Promise<CellRecord> {
    // Before it is given away: nobody else can be about to use what is being laid idle.
    const isIdle = await this.layIdle(cell);
    try {
      const rested = await this.store.restCell(cell.name, cell.owner);
      return rested ?? { ...cell, state: 'retired', owner: null };
    } catch (error) {
      // Refused for good it goes on serving this failover; anything else is tried again.
      if (isIdle && error instanceof RefusedError) await this.begin(cell, cell.owner!);
      throw error;
    }
  }

  /** Whether it lies idle now. What cannot be laid idle rests running: that costs more, and protects as well. */
  private async layIdle(cell: CellRecord): Promise<boolean> {
    const { blueprint, provider } = await this.makingOf(cell);
    // A cell that keeps data goes on following its owner, who may wait for it at every commit.
    if (blueprint.spec.dataSync.kind !== 'none') return false;
    const isOwn = cell.owner !== null && (await this.store.cell(cell.name))?.owner === cell.owner;
    const split = (await this.store.traffic(cell.service))?.split ?? [];
    if (!isOwn || split.some((share) => share.cell === cell.name && share.shareBp > 0)) return false;
    return provider.idle(cell.name).then(
      () => true,
      () => false,
    );
  }

  private async begin(cell: CellRecord, owner: string): Promise<void> {
    const { blueprint, provider } = await this.makingOf(cell);
    await provider.ensure({
      cell: cell.name,
      service: cell.service,
      owner,
      blueprint: blueprint.spec,
      ...(this.leaseS !== undefined && { leaseS: this.leaseS }),
      ...(await this.identities.given(cell, blueprint)),
    });
  }

  /** Ends the cell for good. Refused while the split names it or another failover owns it; gone already is fine. */
  async retire(cell: CellRecord): Promise<void> {
    const retired = await this.store.beginRetirement(cell.name, cell.owner);
    if (!retired) return;
    const { provider } = await this.makingOf(retired);
    await provider.destroy(cell.name);
    await this.identities.remove(cell.name);
    // Last: as long as anything is left of the cell, its name stays taken and the retirement can be taken up again.
    await this.store.finishRetirement(cell.name);
  }

  /** Everything that the providers run, known to the store or not. */
  async standing(): Promise<ObservedCell[]> {
    return (await Promise.all([...this.providers.values()].map((provider) => provider.list()))).flat();
  }

  /** Renews the leases of the cells that the store knows and that have less than half of it left. Answers how many. */
  async renewLeases(): Promise<number> {
    if (this.leaseS === undefined) return 0;
    const known = new Set((await this.store.cells()).map(({ name }) => name));
    const soon = Date.now() + (this.leaseS * 1000) / 2;
    let renewed = 0;
    for (const provider of this.providers.values())
      for (const { cell, expiresAt } of await provider.list())
        if (expiresAt !== undefined && Date.parse(expiresAt) < soon && known.has(cell))
          renewed += Number(await provider.renew(cell, this.leaseS));
    return renewed;
  }

  /** Ends what the store knows nothing of. RefusedError where it does: that is `retire`'s to end. */
  async destroyUnknown(cell: string): Promise<void> {
    if (await this.store.cell(cell)) throw new RefusedError(`cell ${cell} is in the store: retire it instead`);
    await Promise.all([...this.providers.values()].map((provider) => provider.destroy(cell)));
    await this.identities.remove(cell);
  }

  /** Its instances, and how they are spoken to. */
  reached(cell: CellRecord): Promise<Reached[]> {
    return this.identities.reached(cell);
  }

  /** What is really there of the cell now. */
  async observe(cell: CellRecord): Promise<ObservedCell> {
    return (await this.makingOf(cell)).provider.observe(cell.name);
  }

  /** What the store keeps is published to the proxies: one false address would hold up every change of the service. */
  private async refuseWhatCannotBeServed({ name, service }: CellRecord, { instances }: ObservedCell): Promise<void> {
    const cells = await this.store.cells(service);
    const others = cells.filter((other) => other.name !== name && other.state !== 'retired');
    for (const { name: instance, address, port } of instances) {
      const said = `the provider says that ${instance} answers on ${address}:${port}`;
      if (!isIP(address)) throw new CellNotReadyError(`${said}, which is no IP address`);
      if (!Number.isInteger(port) || port < 1 || port > 65_535)
        throw new CellNotReadyError(`${said}, which is no port`);
      const of = others.find((other) => other.instances.some((i) => i.address === address && i.port === port));
      if (of) throw new CellNotReadyError(`${said}, where ${of.name} answers`);
    }
  }

  /** Before the cell is armed: is it as protected as its source, and is the source what its blueprint says? */
  private async lookAtSource(
    cell: CellRecord,
    blueprint: BlueprintVersion,
  ): Promise<{ protection: ProtectionReport; drift: Drift[] }> {
    const reader = this.protectionReaders[blueprint.spec.provider];
    const [synthetic, source] = await Promise.all([this.placesOf(cell), this.sourcePlaces(cell)]);
    const protection = await readBackProtection({
      blueprint: blueprint.spec,
      synthetic,
      source,
      ...(reader && { reader }),
    });
    // A warning only: what cannot be seen from here, or not now, keeps nobody from a failover.
    const { drift } = await driftOfCell(source, blueprint.spec).catch(() => ({ drift: [] }));
    return { protection: await this.identities.readBack(cell, blueprint, protection), drift };
  }

  private async sourcePlaces({ sourceCell }: CellRecord): Promise<PlacedInstance[]> {
    const source = sourceCell === null ? undefined : await this.store.cell(sourceCell);
    return source ? this.placesOf(source).catch(() => source.instances) : [];
  }

  /** With their pids where a provider runs them, else as they are recorded. */
  private async placesOf(cell: CellRecord): Promise<PlacedInstance[]> {
    const { instances } = await this.observe(cell);
    return instances.length > 0 ? instances : cell.instances;
  }

  private async makingOf({
    name,
    blueprint,
  }: CellRecord): Promise<{ blueprint: BlueprintVersion; provider: CellProvider }> {
    const version = await this.store.blueprint(blueprint.name, blueprint.version);
    if (!version)
      throw new RefusedError(`cell ${name}: there is no version ${blueprint.version} of blueprint ${blueprint.name}`);
    const provider = this.providers.get(version.spec.provider);
    if (!provider)
      throw new RefusedError(
        `cell ${name}: no provider ${version.spec.provider} here (there is: ${[...this.providers.keys()].join(', ')})`,
      );
    return { blueprint: version, provider };
  }

  /**
   * Instances of the service's other cells that answer their readiness path now. Those of the source come last: it is
   * predicted to fail, and what it knows is taken only if nobody else has it.
   */
  private async healthyPeers(cell: CellRecord): Promise<Reached[]> {
    const service = await this.store.service(cell.service);
    const path = service?.spec.healthCheck.path ?? '/healthz';
    const others = (await this.store.cells(cell.service)).filter(
      ({ name, role, state }) => name !== cell.name && (role !== 'synthetic' || state === 'serving'),
    );
    const answering = async (peer: CellRecord) => {
      const instances = await this.identities.reached(peer);
      const answers = await Promise.all(
        instances.map((instance) =>
          request(instance, path, { timeoutMs: 1_000 }).then(
            ({ status }) => status >= 200 && status <= 299,
            () => false,
          ),
        ),
      );
      return instances.filter((_, index) => answers[index]);
    };
    const sound = await Promise.all(others.filter(({ name }) => name !== cell.sourceCell).map(answering));
    if (sound.flat().length > 0) return sound.flat();
    return (await Promise.all(others.filter(({ name }) => name === cell.sourceCell).map(answering))).flat();
  }
}

/** Heartbeats while something runs that cannot tell of its progress, but ends in bounded time. */
async function beating<T>(heartbeat: Heartbeat, text: string, work: Promise<T>): Promise<T> {
  const timer = setInterval(() => heartbeat(text), 1_000);
  try {
    return await work;
  } finally {
    clearInterval(timer);
  }
}

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

function whyOf({ phase, instances }: ObservedCell): string {
  const reasons = instances
    .filter(({ reason }) => reason !== undefined)
    .map(({ name, reason }) => `${name}: ${reason}`);
  return reasons.join('; ') || phase;
}
