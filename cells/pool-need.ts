/** What the idle pool of a service lacks, and whether a cell may be made for it now. Pure. */
import type { CellRecord } from '../blueprints/records';
import type { Policy } from '../blueprints/schema';
import { poolOwner, type Phase } from '../workflows/messages';

export type PooledCell = Pick<CellRecord, 'name' | 'state' | 'owner' | 'blueprint'>;

export interface PoolFacts {
  service: string;
  autonomy: Policy['autonomy'];
  /** Who stopped the fleet, and why; null: nobody. */
  stop: { by: string; reason: string } | null;
  /** So many are worth their cost. */
  keep: number;
  /** Declared cells by name, and whether their blueprint keeps idle cells by expected cost. */
  declared: { name: string; blueprint: CellRecord['blueprint']; isByCost: boolean }[];
  synthetic: PooledCell[];
  /** Failovers of the service that have not come to their end. */
  open: { failover: string; phase: Phase | null }[];
}

export interface PoolNeed {
  /** They wait, and any source of their blueprint can have them. */
  idle: string[];
  /** Being made for the pool, or with a failover that will give them back. */
  coming: string[];
  /** Idle, made from a version of a blueprint that no declared cell has any more: of no use to any failover. */
  outdated: string[];
  /** The declared cell that the next one is made after; null: none is made now. */
  source: string | null;
  /** One sentence: why one is made, or why not. */
  why: string;
}

/** A failover in one of these, that holds no cell yet, is about to want one. */
const beforeItsCell: readonly (Phase | null)[] = [null, 'assessing', 'provisioning'];

export function poolNeed(facts: PoolFacts): PoolNeed {
  const { service, declared, synthetic, open, keep } = facts;
  const isCurrent = ({ blueprint }: PooledCell) => declared.some((cell) => isSame(cell.blueprint, blueprint));
  const lying = synthetic.filter(({ state, owner }) => state === 'idle' && owner === null);
  const holders = new Set<string | null>([poolOwner(service), ...open.map(({ failover }) => failover)]);
  const held = synthetic.filter(({ owner, state }) => holders.has(owner) && state !== 'retired' && owner !== null);
  const idle = lying.filter(isCurrent);
  const outdated = lying.filter((cell) => !isCurrent(cell));
  const coming = held.filter(isCurrent);
  const there = [...idle, ...coming];
  const source = sourceOf(facts, there);
  const obstacle = source === null ? 'no blueprint of its cells says scaleDown.keep: expected-cost' : obstacleOf(facts);
  const words = `${keep} worth keeping, ${idle.length} idle, ${coming.length} to come`;
  const named = { idle: names(idle), coming: names(coming), outdated: names(outdated) };
  if (there.length >= keep) return { ...named, source: null, why: `${words}: none is missing` };
  if (obstacle !== null) return { ...named, source: null, why: `${words}: none is made, for ${obstacle}` };
  return { ...named, source, why: `${words}: one is made after ${source}` };
}

/** What keeps from beginning now, although one is missing. */
function obstacleOf({ autonomy, stop, synthetic, open, service }: PoolFacts): string | null {
  if (!mayMake(autonomy)) return `under autonomy ${autonomy} nothing is made`;
  if (stop) return `${stop.by} has stopped the fleet (${stop.reason})`;
  if (synthetic.some(({ owner }) => owner === poolOwner(service))) return 'one is made at a time';
  const owners = new Set(synthetic.map(({ owner }) => owner));
  const first = open.find(({ failover, phase }) => !owners.has(failover) && beforeItsCell.includes(phase));
  return first ? `${first.failover} may want a cell first` : null;
}

/** A service that is only observed, or advised, is never touched. */
export function mayMake(autonomy: Policy['autonomy']): boolean {
  return autonomy === 'act' || autonomy === 'approve';
}

/** The blueprint with the most declared cells for each cell that waits; of these cells the first by name. */
function sourceOf({ declared }: PoolFacts, there: readonly PooledCell[]): string | null {
  const candidates = declared.filter(({ isByCost }) => isByCost);
  const weight = ({ blueprint }: PoolFacts['declared'][number]) =>
    candidates.filter((other) => isSame(other.blueprint, blueprint)).length /
    (1 + there.filter((cell) => isSame(cell.blueprint, blueprint)).length);
  const byWeight = [...candidates].sort((a, b) => weight(b) - weight(a) || a.name.localeCompare(b.name));
  return byWeight[0]?.name ?? null;
}

function isSame(a: CellRecord['blueprint'], b: CellRecord['blueprint']): boolean {
  return a.name === b.name && a.version === b.version;
}

function names(cells: readonly PooledCell[]): string[] {
  return cells.map(({ name }) => name);
}
