/** What terminated runs and lost processes left behind: found by comparing what is known of a service's cells. Pure. */
import type { CellRole, CellState } from '../blueprints/records';
import type { Policy } from '../blueprints/schema';
import type { InstancePhase } from '../cells/provider';
import { poolOwner, type Outcome } from './messages';

export interface RunFact {
  /** `unknown`: Temporal has nothing of it, or no longer. */
  status: 'running' | 'completed' | 'cancelled' | 'failed' | 'terminated' | 'timed-out' | 'unknown';
  runId: string | null;
  endedForS: number | null;
  outcome: Outcome | null;
}

export interface CellFact {
  name: string;
  role: CellRole;
  state: CellState;
  sourceCell: string | null;
  owner: string | null;
  /** As commanded. */
  shareBp: number;
  coverInstances: number;
  /** As the provider sees it; null where it could not be asked. */
  observed: InstancePhase | null;
  /** By load reports; null while nothing covers the cell. */
  requestsPerSecond: number | null;
  /** How long it has been idle and nobody's; null if it is not. */
  idleForS: number | null;
}

/** What a provider runs and the Configuration Data Store does not know. */
export interface StrangerFact {
  name: string;
  owner: string;
  requestsPerSecond: number | null;
}

export interface ServiceFacts {
  service: string;
  autonomy: Policy['autonomy'];
  /** Of the split. */
  epoch: number;
  /** What has been so for less than this is left alone: a new run may be about to take it up. */
  graceS: number;
  cells: CellFact[];
  strangers: StrangerFact[];
  /** By workflow id: every run that owns one of the cells. */
  runs: Record<string, RunFact>;
}

export type FindingKind =
  | 'traffic-without-owner'
  | 'split-of-an-ended-run'
  | 'share-left-to-a-person'
  | 'traffic-outside-the-split'
  | 'claim-of-an-ended-run'
  | 'orphaned-cell'
  | 'idle-cell-gone'
  | 'unknown-cell';

/**
 * `take-over`: the failover is started again, takes up what it finds and gives it back in its gated steps. `rest`: out
 * of the split, idle, nobody's. `retire`: out of the split and gone. `destroy`: gone, for it is in no split and no store.
 */
export type Mend = 'take-over' | 'rest' | 'retire' | 'destroy' | 'none';

export interface Finding {
  /** The same trouble has the same id at every look. */
  id: string;
  kind: FindingKind;
  service: string;
  cell: string;
  sourceCell: string | null;
  owner: string | null;
  mend: Mend;
  /** One sentence: what is wrong, and why it is mended so or not at all. */
  what: string;
}

const reportsLookBackS = 60;

export function findings(facts: ServiceFacts): Finding[] {
  const known = facts.cells.flatMap((cell) =>
    cell.role !== 'synthetic' || cell.state === 'retired' ? [] : (ofCell(facts, cell) ?? []),
  );
  return [...known, ...facts.strangers.flatMap((stranger) => ofStranger(facts, stranger))];
}

function ofCell(facts: ServiceFacts, cell: CellFact): Finding | null {
  const run = cell.owner === null ? null : (facts.runs[cell.owner] ?? lost);
  if (run?.status === 'running') return null;
  if (run && run.endedForS !== null && run.endedForS < facts.graceS) return null;
  if (cell.shareBp > 0) return carrying(facts, cell, run);
  return cell.owner === null ? ofNobody(facts, cell) : claimed(facts, cell, run ?? lost);
}

const lost: RunFact = { status: 'unknown', runId: null, endedForS: null, outcome: null };

/** A run that came to its own end has left the share where it is on purpose. */
function endedByItself(run: RunFact | null): boolean {
  return run?.status === 'completed' || run?.status === 'cancelled';
}

function carrying(facts: ServiceFacts, cell: CellFact, run: RunFact | null): Finding | null {
  const share = `${cell.name} carries ${cell.shareBp} bp of ${facts.service}`;
  const isGone = cell.observed === 'absent' || cell.observed === 'failed';
  if (endedByItself(run) && !isGone) {
    // A failover that has completed keeps its traffic where it is.
    if (run?.outcome === 'failed-over') return null;
    const ended = `its failover ended as ${run?.outcome ?? run?.status} and left the share to a person`;
    return finding(facts, cell, run, 'share-left-to-a-person', 'none', `${share}; ${ended}`);
  }
  const kind = run === null ? 'traffic-without-owner' : 'split-of-an-ended-run';
  const why = run === null ? 'and belongs to nobody' : `and its run has ${endOf(run)}`;
  const gone = isGone ? `, and the provider says that it is ${cell.observed}` : '';
  if (cell.sourceCell === null) {
    return finding(facts, cell, run, kind, 'none', `${share} ${why}${gone}; no source is known to give it back to`);
  }
  return finding(facts, cell, run, kind, 'take-over', `${share} ${why}${gone}; its failover is to take it up again`);
}

function ofNobody(facts: ServiceFacts, cell: CellFact): Finding | null {
  if (cell.state === 'idle') {
    if (cell.observed !== 'absent' && cell.observed !== 'failed') return outside(facts, cell);
    const what = `${cell.name} is kept idle, but the provider says that it is ${cell.observed}`;
    return finding(facts, cell, null, 'idle-cell-gone', 'retire', what);
  }
  const what = `${cell.name} is ${cell.state} and belongs to nobody`;
  return finding(facts, cell, null, 'orphaned-cell', restOrRetire(cell), what);
}

function claimed(facts: ServiceFacts, cell: CellFact, run: RunFact): Finding | null {
  // Left as cover on purpose, by a run that came to its own end.
  if (endedByItself(run) && cell.coverInstances > 0) return null;
  const what = `${cell.name} is ${cell.state} and still claimed by ${cell.owner}, whose run has ${endOf(run)}`;
  return finding(facts, cell, run, 'claim-of-an-ended-run', restOrRetire(cell), what);
}

/** Somebody still sends requests to what the split does not name. Nothing to change: the split says so already. */
function outside(facts: ServiceFacts, cell: CellFact): Finding | null {
  // Load reports look back, and requests under way come to their end.
  if ((cell.idleForS ?? 0) < Math.max(facts.graceS, reportsLookBackS)) return null;
  if (!cell.requestsPerSecond || cell.coverInstances > 0) return null;
  const what = `${cell.name} is in no split, but load reports show ${cell.requestsPerSecond.toFixed(1)} requests/s at it: a proxy has not taken the split`;
  return finding(facts, cell, null, 'traffic-outside-the-split', 'none', what);
}

/** What stands may serve the next failover; what does not, or was not yet proven for the pool, is of no use to anybody. */
function restOrRetire(cell: CellFact): Mend {
  return cell.observed === 'ready' && !cell.owner?.startsWith('pool/') ? 'rest' : 'retire';
}

function ofStranger(facts: ServiceFacts, stranger: StrangerFact): Finding[] {
  const run = facts.runs[stranger.owner];
  // What operators run is theirs.
  const isOfRun = stranger.owner.startsWith('failover/') || stranger.owner === poolOwner(facts.service);
  if (!isOfRun || run?.status === 'running') return [];
  const cell = { name: stranger.name, owner: stranger.owner, sourceCell: null };
  const what = `${stranger.name} runs for ${stranger.owner}, and the store knows nothing of it`;
  if (stranger.requestsPerSecond) {
    return [
      finding(facts, cell, run ?? null, 'unknown-cell', 'none', `${what}; it answers requests and is left alone`),
    ];
  }
  return [finding(facts, cell, run ?? null, 'unknown-cell', 'destroy', what)];
}

function endOf(run: RunFact): string {
  const words = {
    running: 'not ended',
    completed: 'completed',
    cancelled: 'been cancelled',
    failed: 'failed',
    terminated: 'been terminated',
    'timed-out': 'timed out',
    unknown: 'gone from Temporal',
  };
  return words[run.status];
}

function finding(
  { service, autonomy, epoch }: ServiceFacts,
  { name, owner, sourceCell }: Pick<CellFact, 'name' | 'owner' | 'sourceCell'>,
  run: RunFact | null,
  kind: FindingKind,
  mend: Mend,
  what: string,
): Finding {
  const isHandsOff = (autonomy === 'observe' || autonomy === 'advise') && mend !== 'none';
  return {
    id: `finding/${kind}/${name}/${run?.runId ?? `epoch-${epoch}`}`,
    kind,
    service,
    cell: name,
    sourceCell,
    owner,
    mend: isHandsOff ? 'none' : mend,
    what: isHandsOff ? `${what}; nothing is done under autonomy ${autonomy}` : what,
  };
}
