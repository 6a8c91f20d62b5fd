/**
 * Where a failover meets the data: nothing of a cell that keeps data is used before its data is there, writes go over as a
 * whole before the first share that is more than a trial, and a cell that owns the data is not ended.
 */
import type { CellRecord } from '../../blueprints/records';
import type { ConfigurationStore } from '../../blueprints/store';
import { poolOwner } from '../../workflows/messages';
import type { TlsTo } from '../identity/cell-identities';
import type { DataCell } from './contract';
import { isWithin, lagText, type DataSync } from './data-sync';
import { Following } from './following';
import { catchUp, followWithinMs, handOver, haveFollow, type Handover, type Progress } from './handover';
import { dataSyncOf } from './of-blueprint';

type Store = Pick<ConfigurationStore, 'cell' | 'cells' | 'blueprint'>;

/** The cell owns the data that nobody else could take over: it must not end. */
export class OwnsDataError extends Error {
  override readonly name = 'OwnsDataError';
}

export interface Move {
  source: string;
  syntheticCell: string;
  /** Of the synthetic cell's share. */
  direction: 'up' | 'down';
  /** A trial: it shares the reads, and the writes that it is sent it hands on to the owner. */
  isTrial: boolean;
}

export interface Verdict {
  /** Null if the share may move; else why not now. */
  barred: string | null;
  /** What was done and seen, one sentence per step. */
  evidence: string[];
}

const open: Verdict = { barred: null, evidence: [] };

export class DataGate {
  private readonly following = new Following();
  /** Handovers begun here that were not read back to their end, by service: to whom, and what was done and seen so far. */
  private readonly begun = new Map<string, { to: string; evidence: string[] }>();

  constructor(
    private readonly store: Store,
    private readonly syncOf: typeof dataSyncOf = dataSyncOf,
    /** How to speak to cells that have an identity. */
    private readonly tlsTo?: TlsTo,
    /** For so long cells without a part in a handover are told of it each time, in milliseconds. */
    private readonly othersWithinMs = followWithinMs,
  ) {}

  /** Part of warming: returns when the cell has the data and follows. Null where it keeps none. */
  async warm(cell: CellRecord, progress: Progress, signal?: AbortSignal): Promise<string | null> {
    return this.with(cell, null, async (sync) => {
      const isForPool = cell.owner === poolOwner(cell.service);
      // A handover that is under way is a failover's: whoever only stands by looks on.
      const owner = isForPool ? await this.ownerOf(sync, cell) : (await this.settledOwner(sync, cell, progress)).owner;
      if (owner === null) return `nobody has written the data of ${cell.service} yet`;
      if (owner.name === cell.name) return `${cell.name} owns the data`;
      const { from, lag, tookMs } = await catchUp(sync, cell, owner, progress, signal);
      // From here on the source may die at any time, and everything that it acknowledged is here. For a cell that only
      // stands by nobody is to wait at a commit, and it must not take that word from a failover's.
      if (!isForPool) await sync.secure(cell, owner);
      return `data caught up in ${(tookMs / 1000).toFixed(1)} s: was ${lagText(from)}, is ${lagText(lag)}`;
    });
  }

  /** Asked before every change of the share, and again by every attempt. Whoever gets the share has the data first. */
  async beforeMove({ source, syntheticCell, direction, isTrial }: Move, progress?: Progress): Promise<Verdict> {
    const cell = await this.store.cell(syntheticCell);
    if (!cell) return open;
    return this.with(cell, open, async (sync) => {
      const to = direction === 'up' ? cell : await this.store.cell(source);
      if (!to) return { barred: `cell ${source} is not known: nobody can take the data back`, evidence: [] };
      try {
        const { owner, finished } = await this.settledOwner(sync, cell, progress);
        if (owner === null) return open;
        const cells = await this.store.cells(cell.service);
        const handing = { sync, to, cells, ...(progress && { progress }) };
        if (owner.name === to.name) {
          const troubles = this.following.takeTroubles(cell.service);
          // On the way back a trial, or an owner that never changed, leaves nothing to be handed back.
          const isDone = !this.begunTo(cell, to) && (direction === 'down' || (await sync.isWriting(to)));
          const evidence = isDone ? finished : await this.handOver(cell, handing);
          // Whoever could not be told at the handover, or was to be told by an attempt that died, is told now.
          this.turnOthers(cell, to, source, cells);
          return { barred: null, evidence: [...troubles, ...evidence] };
        }
        // Where a third cell writes, only reads are at stake: its writes stay where they are, there and back.
        const isOfThird = owner.name !== source && owner.name !== syntheticCell;
        if (isOfThird && direction === 'down') return open;
        if (direction === 'up' && (isTrial || isOfThird)) {
          const lag = await sync.lag(to, owner);
          const words = `${to.name} is ${lagText(lag)}`;
          return isWithin(lag, sync.limit)
            ? { barred: null, evidence: [words] }
            : { barred: `the data gate is closed: ${words}`, evidence: [] };
        }
        // Nobody warmed the source: it may have lived through the failover as something else than a follower. An owner
        // that is dead cannot be followed; whether what is there suffices is the lag gate's to say.
        await sync.follow(to, owner).catch((error: Error) => progress?.(error.message));
        this.begun.delete(cell.service);
        const evidence = await this.handOver(cell, handing);
        this.turnOthers(cell, to, source, cells);
        return { barred: null, evidence };
      } catch (error) {
        return { barred: `the data could not be handed over to ${to.name}: ${(error as Error).message}`, evidence: [] };
      }
    });
  }

  /**
   * Why errors of the cell may be another's: it hands writes on to an owner that does not take them. Null where it owns
   * the data itself, keeps none, or its owner writes.
   */
  async excuse(name: string): Promise<string | null> {
    const cell = await this.store.cell(name);
    if (!cell) return null;
    return this.with(cell, null, async (sync) => {
      try {
        const owner = await this.ownerOf(sync, cell);
        if (owner === null || owner.name === name || (await sync.isWriting(owner))) return null;
        return `${owner.name} owns the data and takes no writes`;
      } catch (error) {
        return `whether the owner of the data takes writes cannot be told: ${(error as Error).message}`;
      }
    });
  }

  /** Before the cell rests or, `forGood`, ends: it owns nothing, and nobody waits for it. */
  async beforeEnd(cell: CellRecord, source: string, forGood: boolean, progress?: Progress): Promise<void> {
    const move: Move = { source, syntheticCell: cell.name, direction: 'down', isTrial: false };
    const { barred } = await this.beforeMove(move, progress);
    await this.with(cell, undefined, async (sync) => {
      // What is in a log outlives every cell; it only has nobody to write it until there is a new owner.
      if (barred !== null && (sync.livesInCells || !forGood))
        throw new OwnsDataError(`${cell.name} is kept: ${barred}`);
      if (!sync.livesInCells) return;
      const owner = await this.ownerOf(sync, cell);
      if (owner && owner.name !== cell.name) await sync.release(owner, cell, forGood);
    });
  }

  private begunTo({ service }: CellRecord, to: DataCell): string[] | undefined {
    const begun = this.begun.get(service);
    return begun?.to === to.name ? begun.evidence : undefined;
  }

  /**
   * Answers what was done and seen. What fails after the promotion, as a read-back that takes too long, is finished by the
   * next attempt and told with it, though the new owner writes by then.
   */
  private async handOver(cell: CellRecord, handing: Handover): Promise<string[]> {
    const { service } = cell;
    await this.following.over(service);
    const evidence = [...(this.begunTo(cell, handing.to) ?? [])];
    this.begun.set(service, { to: handing.to.name, evidence });
    const progress: Progress = (sentence) => {
      evidence.push(sentence);
      handing.progress?.(sentence);
    };
    await handOver({ ...handing, progress });
    this.begun.delete(service);
    return evidence;
  }

  /**
   * Third cells learn of the owner. The source is left as it is until there is a way back: it may be dead, and it is the
   * last to have what it has.
   */
  private turnOthers(synthetic: CellRecord, owner: DataCell, source: string, cells: readonly CellRecord[]): void {
    const third = cells.filter(({ name, state }) => name !== source && name !== synthetic.name && state !== 'retired');
    this.following.begin(synthetic.service, (report) =>
      this.with(synthetic, undefined, (sync) => haveFollow(sync, owner, third, report, this.othersWithinMs)),
    );
  }

  /**
   * Of a cell that is about to rest, out of the split: it may have owned the data and follow nobody now. Told to follow,
   * it is ready for the next failover; one that cannot be told has to catch up then.
   */
  async keepFollowing(cell: CellRecord, progress?: Progress): Promise<void> {
    await this.with(cell, undefined, async (sync) => {
      const owner = sync.livesInCells ? await this.ownerOf(sync, cell) : null;
      if (owner && owner.name !== cell.name) await haveFollow(sync, owner, [cell], progress);
    }).catch((error: Error) => progress?.(`${cell.name} could not be told to follow: ${error.message}`));
  }

  /**
   * Once the cell is gone: nobody keeps anything for it any more. Rejects where the owner of the data cannot be asked, to
   * be asked again.
   */
  async afterEnd(cell: CellRecord): Promise<void> {
    await this.with(cell, undefined, async (sync) => {
      if (!sync.livesInCells) return;
      const cells = (await this.store.cells(cell.service)).filter(
        ({ name, state, instances }) => name !== cell.name && state !== 'retired' && instances.length > 0,
      );
      // Where no cell answers, there is nobody who keeps anything.
      const { owner } = await sync.ownership(cells).catch(() => ({ owner: null }));
      const asked = await Promise.allSettled(cells.map((each) => sync.forget(each, cell)));
      const failed = asked[cells.findIndex(({ name }) => name === owner)];
      if (failed?.status === 'rejected') throw failed.reason;
    });
  }

  /** The owner; where a handover to it was broken off, the end of that comes first, and what was done and seen of it. */
  private async settledOwner(
    sync: DataSync,
    cell: CellRecord,
    progress?: Progress,
  ): Promise<{ owner: DataCell | null; finished: string[] }> {
    const { owner, isUnfinished } = await this.ownership(sync, cell);
    if (!owner || !isUnfinished) return { owner, finished: [] };
    const cells = await this.store.cells(cell.service);
    const finished = await this.handOver(cell, { sync, to: owner, cells, ...(progress && { progress }) });
    return { owner, finished };
  }

  private async ownerOf(sync: DataSync, cell: CellRecord): Promise<DataCell | null> {
    return (await this.ownership(sync, cell)).owner;
  }

  private async ownership(
    sync: DataSync,
    { service }: CellRecord,
  ): Promise<{ owner: DataCell | null; isUnfinished: boolean }> {
    const cells = (await this.store.cells(service)).filter(({ state }) => state !== 'retired');
    const { owner, isUnfinished = false } = await sync.ownership(cells);
    if (owner === null) return { owner, isUnfinished };
    const found = cells.find(({ name }) => name === owner);
    if (!found) throw new OwnsDataError(`${owner} owns the data of ${service} and is not known`);
    return { owner: found, isUnfinished };
  }

  private async with<T>(cell: CellRecord, without: T, work: (sync: DataSync) => Promise<T>): Promise<T> {
    const blueprint = await this.store.blueprint(cell.blueprint.name, cell.blueprint.version);
    // The cells of a service all have the same kind of name.
    const tlsOf = async (name: string) => blueprint && this.tlsTo?.(blueprint.spec, name);
    const sync = blueprint?.spec.dataSync && this.syncOf(blueprint.spec.dataSync, tlsOf);
    if (!sync) return without;
    try {
      return await work(sync);
    } finally {
      await sync.close();
    }
  }
}
