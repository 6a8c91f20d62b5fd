/** The Synthetic Cell Manager: what others ask of the life of synthetic cells; each part of it lies in `life/`. */
import type { BlueprintVersion, CellRecord } from '../blueprints/records';
import type { ConfigurationStore } from '../blueprints/store';
import type { CellDrift } from './capture/capture-cell';
import type { Reached } from './http';
import type { CellIdentities } from './identity/cell-identities';
import { IdentityKeeper } from './identity/keeper';
import type { Heartbeat } from './life/heartbeat';
import { driftFromBlueprint } from './life/look';
import { acquireCell, makeForPool, type AcquiredSyntheticCell } from './life/make';
import { CellMakings } from './life/makings';
import { restCell, retireCell } from './life/rest';
import { destroyUnknown, renewLeases, standingCells } from './life/standing';
import { warmCell } from './life/warm';
import type { ProtectionReader } from './protection/read-back';
import type { CellProvider, ObservedCell } from './provider';
import { sweepCells, type Sweep } from './sweep';
import type { ReadTraffic } from './warm-up/service-traffic';
import type { WarmUpEvidence } from './warm-up/warm-up';

export class SyntheticCellManager {
  private readonly makings: CellMakings;
  readonly identities: IdentityKeeper;

  constructor(
    private readonly store: ConfigurationStore,
    providers: CellProvider | readonly CellProvider[],
    /** Seconds for which a cell is kept that nobody renews. Left out: cells are made without a lease. */
    leaseS?: number,
    /** By kind of provider, where its cells are not processes of this machine. */
    private readonly protectionReaders: Readonly<Record<string, ProtectionReader>> = {},
    /** Who issues certificates. Left out: cells whose blueprint gives them an identity cannot be made. */
    identities?: CellIdentities,
    /** Of a cell that is gone: takes away what others keep for it. */
    private readonly afterEnd?: (cell: CellRecord) => Promise<void>,
  ) {
    this.identities = new IdentityKeeper(store, identities);
    this.makings = new CellMakings(store, providers, this.identities, leaseS);
  }

  /**
   * The failover's synthetic cell, all its instances ready and recorded. Asked again after a crash at any point it goes
   * on with the same cell. RefusedError: asking again will not help. CellNotReadyError: it may.
   */
  acquire(
    request: { failover: string; source: string },
    heartbeat: Heartbeat = () => undefined,
    signal?: AbortSignal,
  ): Promise<AcquiredSyntheticCell> {
    return acquireCell(this.makings, request, heartbeat, signal);
  }

  /**
   * A cell that the pool has claimed, ready and recorded. RefusedError: a failover has taken it by now, or asking again
   * will not help.
   */
  makeForPool(cell: CellRecord, heartbeat: Heartbeat = () => undefined, signal?: AbortSignal): Promise<CellRecord> {
    return makeForPool(this.makings, cell, heartbeat, signal);
  }

  /**
   * Runs the blueprint's warm-up plan beside the service's healthy cells. Honest: see `warm` and `reasons`.
   * `readTraffic` tells what proxies report; left out, steps that need it are not judged.
   */
  warm(
    cell: CellRecord,
    heartbeat: Heartbeat = () => undefined,
    signal?: AbortSignal,
    readTraffic?: ReadTraffic,
  ): Promise<WarmUpEvidence> {
    const { protectionReaders } = this;
    return warmCell(this.makings, cell, { heartbeat, signal, readTraffic, protectionReaders });
  }

  /** Nobody's any more, but kept for the next failover, at next to no cost. Refused while the split gives it a share. */
  rest(cell: CellRecord): Promise<CellRecord> {
    return restCell(this.makings, cell);
  }

  /** As `rest`, for a cell that the pool has made. From here on no failover can take it before it lies idle. */
  async restInPool(cell: CellRecord): Promise<CellRecord> {
    return this.rest(await this.store.updateCell(cell.name, { state: 'idle' }, cell.owner));
  }

  /** Ends the cell for good. Refused while the split names it or another failover owns it; gone already is fine. */
  retire(cell: CellRecord): Promise<void> {
    return retireCell(this.makings, cell, this.afterEnd);
  }

  /** Everything that the providers run, known to the store or not. */
  standing(): Promise<ObservedCell[]> {
    return standingCells(this.makings);
  }

  /** The janitor's round over all providers: see `sweepCells`. */
  sweep(options: { remove: boolean }): Promise<Sweep> {
    return sweepCells(this.store, this.makings.providers, options);
  }

  /** Where a cell differs from its blueprint, as far as it can be seen from this machine. */
  driftOf(cell: CellRecord, blueprint: BlueprintVersion): Promise<CellDrift> {
    return driftFromBlueprint(this.makings, cell, blueprint);
  }

  /** Renews the leases of the cells that the store knows and that have less than half of it left. Answers how many. */
  renewLeases(): Promise<number> {
    return renewLeases(this.makings);
  }

  /** Ends what the store knows nothing of. RefusedError where it does: that is `retire`'s to end. */
  destroyUnknown(cell: string): Promise<void> {
    return destroyUnknown(this.makings, cell);
  }

  /** Its instances, and how they are spoken to. */
  reached(cell: CellRecord): Promise<Reached[]> {
    return this.identities.reached(cell);
  }

  /** What is really there of the cell now. */
  observe(cell: CellRecord): Promise<ObservedCell> {
    return this.makings.observe(cell);
  }
}
