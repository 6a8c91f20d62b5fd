/**
 * One seeded run: clients ask, the right to write goes to a synthetic cell and back, and in the middle of it something
 * breaks. The data gate of the failovers does it, tried again as a failover would.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { CellRecord } from '../../blueprints/records';
import type { DataCell } from '../../cells/data-sync/contract';
import { DataGate } from '../../cells/data-sync/data-gate';
import type { DataSync } from '../../cells/data-sync/data-sync';
import { handOver } from '../../cells/data-sync/handover';
import { pick, seededRandom } from '../random';
import { checkHistory, type Violation } from './checker';
import { Clients } from './clients';

/** A cell of the run as the faults see it. */
export interface FaultyCell extends DataCell {
  /** kill -9, and a new start of the same after a while. */
  killFor(ms: number): Promise<void>;
  /** SIGSTOP, SIGCONT after a while. */
  pauseFor(ms: number): Promise<void>;
  /** Cuts it off from where its data lies; `resets`: every connection breaks, otherwise everything is held up and comes late. */
  cutOffFor(ms: number, resets: boolean): Promise<void>;
}

export const faults = ['none', 'kill', 'pause', 'cut-off', 'held-up', 'crash'] as const;
export const victims = ['owner', 'target'] as const;
export const moments = ['lag', 'secure', 'fence', 'promote', 'readBack'] as const;

export interface PlannedFault {
  fault: (typeof faults)[number];
  victim: (typeof victims)[number];
  /** The call of the handover in whose middle it happens. */
  moment: (typeof moments)[number];
  /** From the beginning of the call. */
  afterMs: number;
  lastsMs: number;
}

export interface FaultedHandover {
  to: string;
  /** From the first fence to the last promotion, over all attempts: how long writes had to wait. */
  writePauseMs: number;
}

export interface FaultedRun {
  seed: number;
  plan: PlannedFault[];
  handovers: FaultedHandover[];
  attempts: number;
  acknowledged: number;
  operations: number;
  unknown: number;
  violations: Violation[];
}

export interface RunOptions {
  seed: number;
  sync: DataSync;
  source: FaultyCell;
  synthetic: FaultyCell;
  /** How long a handover may be tried anew. */
  withinMs: number;
  say?: (sentence: string) => void;
}

/** The plan follows from the seed alone. */
export function planOf(seed: number): PlannedFault[] {
  const random = seededRandom(seed);
  return ['there', 'back'].map(() => ({
    fault: pick(random, faults),
    victim: pick(random, victims),
    moment: pick(random, moments),
    afterMs: Math.floor(random() * 60),
    lastsMs: 300 + Math.floor(random() * 2_500),
  }));
}

export async function faultedRun({
  seed,
  sync,
  source,
  synthetic,
  withinMs,
  say = () => undefined,
}: RunOptions): Promise<FaultedRun> {
  const cells = [source, synthetic];
  const plan = planOf(seed);
  await handOver({ sync, to: source, cells: [source] });
  const asked = cells.map(({ name, instances: [at] }) => ({ name, address: at!.address, port: at!.port }));
  const clients = new Clients({ seed, clients: 6, cells: () => asked });
  const handovers: FaultedHandover[] = [];
  let attempts = 0;
  await writesGoOn(clients);
  for (const [index, planned] of plan.entries()) {
    const [owner, to] = index === 0 ? [source, synthetic] : [synthetic, source];
    const trouble = new Trouble(sync, planned, planned.victim === 'owner' ? owner : to, say);
    const move = {
      ...{ source: source.name, syntheticCell: synthetic.name, isTrial: false },
      direction: index === 0 ? ('up' as const) : ('down' as const),
    };
    const deadline = Date.now() + withinMs;
    for (;;) {
      attempts += 1;
      try {
        // Warmed again before every attempt, undisturbed: the fault may have thrown it back.
        if (index === 0) await gateOver(cells, sync).warm(recordOf(to), say, AbortSignal.timeout(withinMs));
        const { barred } = await gateOver(cells, trouble.attached()).beforeMove(move, say);
        if (barred !== null) throw new Error(barred);
        handovers.push({ to: to.name, writePauseMs: trouble.writePauseMs });
        break;
      } catch (error) {
        say(`attempt ${attempts}: ${(error as Error).message}`);
        if (Date.now() > deadline)
          throw new Error(`seed ${seed}: the handover did not come to its end: ${(error as Error).message}`);
        await sleep(200);
      }
    }
    await trouble.isOver();
    await writesGoOn(clients);
  }
  const acknowledged = clients.acknowledgedWrites();
  const history = await clients.finish(withinMs);
  const unknown = history.filter(({ outcome }) => outcome === 'unknown').length;
  return {
    seed,
    plan,
    handovers,
    attempts,
    acknowledged,
    operations: history.length,
    unknown,
    violations: checkHistory(history),
  };
}

function recordOf({ name, instances }: FaultyCell): CellRecord {
  const blueprint = { name: 'stateful', version: 1 };
  return { name, service: 'stateful', state: 'active', instances, blueprint } as unknown as CellRecord;
}

function gateOver(cells: readonly FaultyCell[], sync: DataSync): DataGate {
  const records = cells.map(recordOf);
  const store = {
    cell: async (name: string) => records.find((record) => record.name === name),
    cells: async () => records,
    blueprint: async () => ({ spec: { dataSync: { kind: sync.kind } } }),
  };
  // The gate closes what it opens; here it is the run's.
  const kept = new Proxy(sync, {
    get: (target, name) => {
      const own: unknown = name === 'close' ? async () => undefined : Reflect.get(target, name);
      return typeof own === 'function' ? (own.bind(target) as unknown) : own;
    },
  });
  return new DataGate(store as never, () => kept);
}

/** Until writes have been acknowledged anew. */
async function writesGoOn(clients: Clients): Promise<void> {
  const before = clients.acknowledgedWrites();
  for (const deadline = Date.now() + 60_000; clients.acknowledgedWrites() < before + 20; await sleep(50)) {
    if (Date.now() > deadline) throw new Error('no writes are acknowledged any more');
  }
}

type Call = (...args: unknown[]) => Promise<unknown>;

/** Wraps the port so that the planned fault happens in the middle of the planned call, once. */
class Trouble {
  private happened: Promise<void> | undefined;
  private fencedMs: number | undefined;
  private promotedMs: number | undefined;

  constructor(
    private readonly sync: DataSync,
    private readonly planned: PlannedFault,
    private readonly victim: FaultyCell,
    private readonly say: (sentence: string) => void,
  ) {}

  attached(): DataSync {
    const { moment } = this.planned;
    return new Proxy(this.sync, {
      get: (sync, name) => {
        const own: unknown = Reflect.get(sync, name);
        if (typeof own !== 'function') return own;
        const call = this.timed(name, own.bind(sync) as Call);
        if (name !== moment || this.happened) return call;
        return async (...args: unknown[]) => {
          this.happened = this.happen();
          const result = call(...args);
          if (this.planned.fault !== 'crash') return result;
          // Whoever hands over dies in mid-call: what it asked for goes on, and nobody hears the answer.
          result.catch(() => undefined);
          await sleep(this.planned.afterMs);
          throw new Error('the one who hands over has crashed');
        };
      },
    });
  }

  get writePauseMs(): number {
    return (this.promotedMs ?? 0) - (this.fencedMs ?? this.promotedMs ?? 0);
  }

  private timed(name: string | symbol, call: Call): Call {
    if (name === 'fence')
      return (...args) => {
        this.fencedMs ??= performance.now();
        return call(...args);
      };
    if (name !== 'promote') return call;
    return async (...args) => {
      const promoted = await call(...args);
      this.promotedMs = performance.now();
      return promoted;
    };
  }

  async isOver(): Promise<void> {
    await this.happened;
  }

  private async happen(): Promise<void> {
    const { fault, afterMs, lastsMs } = this.planned;
    await sleep(afterMs);
    this.say(`${fault} of ${this.victim.name} for ${lastsMs} ms in ${this.planned.moment}`);
    if (fault === 'kill') await this.victim.killFor(lastsMs);
    else if (fault === 'pause') await this.victim.pauseFor(lastsMs);
    else if (fault === 'cut-off' || fault === 'held-up') await this.victim.cutOffFor(lastsMs, fault === 'cut-off');
  }
}
