/** Whether a drill may begin, or its share may go back: windows, capacity, health. Pure. */
import type { DrillPolicy, Policy } from '../blueprints/schema';

export interface DrillFacts {
  autonomy: Policy['autonomy'];
  drill: DrillPolicy;
  nowMs: number;
  /** Of the service's failovers that are under way, real or not; workflow ids. */
  underWay: string[];
  /** Declared cells; load as a part of what the cell can carry, null while it is not measured. */
  cells: { name: string; load: number | null; errorRatio: number; shareBp: number }[];
  maxErrorRatio: number;
  /** Of the policy: below this load nothing moves, and a drill would wait in vain. */
  minSourceLoad: number;
  /** Synthetic cells that carry traffic already. */
  standIns: string[];
}

export type DrillPermit = { go: true; cell: string } | { go: false; why: string };

const dayNames = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'] as const;
const dayMs = 86_400_000;

export function drillPermit(facts: DrillFacts): DrillPermit {
  const { autonomy, drill, nowMs, underWay, standIns } = facts;
  const no = (why: string): DrillPermit => ({ go: false, why });
  if (autonomy === 'observe' || autonomy === 'advise') {
    return no(`autonomy ${autonomy} moves no traffic, not even of a drill: set policy.autonomy to approve or act`);
  }
  const window = blockedBy(drill.blocked, nowMs);
  if (window) return no(`drills are blocked from ${window.from} to ${window.to} UTC`);
  if (underWay.length > 0) return no(`a failover is open already: ${underWay.join(', ')}`);
  if (standIns.length > 0) return no(`${standIns.join(', ')} still carries traffic of an earlier failover`);
  const busy = whatLacksRoom(facts);
  if (busy) return no(busy);
  const able = cellsWithShare(facts);
  if (able.length === 0) return no(`no cell carries enough to give ${drill.shareBp} bp to a drill`);
  const cell = sourceOf(facts);
  return cell === null ? no(whyQuiet(able, facts.minSourceLoad)) : { go: true, cell };
}

type DrillCell = DrillFacts['cells'][number];

function whyQuiet(cells: readonly DrillCell[], minSourceLoad: number): string {
  const percent = (part: number) => `${(part * 100).toFixed(1)} %`;
  const loads = cells.map(({ name, load }) => `${name} ${percent(load ?? 0)}`).join(', ');
  return `too few requests: of their capacity ${loads} are used, and below ${percent(minSourceLoad)} (policy.minSourceLoad) nothing moves`;
}

/** What speaks against giving or taking a share now; null: nothing does. */
export function whatLacksRoom({ cells, drill, maxErrorRatio }: Omit<DrillFacts, 'nowMs'>): string | null {
  for (const { name, load, errorRatio } of cells) {
    if (load === null) return `${name} is not covered by load reports`;
    if (errorRatio > maxErrorRatio) return `${name} answers ${(errorRatio * 100).toFixed(1)} % with errors`;
    const spareBp = Math.floor((1 - load) * 10_000);
    if (spareBp < drill.spareBp) {
      return `${name} has ${Math.max(0, spareBp)} bp of its capacity to spare, not ${drill.spareBp}`;
    }
  }
  return null;
}

/** The cell that was named, or all, as far as there is a share to be taken. */
function cellsWithShare({ cells, drill }: DrillFacts): DrillCell[] {
  return cells.filter((c) => c.shareBp >= drill.shareBp && (drill.cell === undefined || drill.cell === c.name));
}

/** Each in turn: another at every drill. */
function sourceOf(facts: DrillFacts): string | null {
  const able = cellsWithShare(facts).filter(({ load }) => (load ?? 0) > facts.minSourceLoad);
  const turn = Math.floor(facts.nowMs / (facts.drill.everyH * 3_600_000));
  return able[turn % able.length]?.name ?? null;
}

/** A window that begins late and ends early reaches into the next day; its day is the one it begins on. */
function blockedBy(windows: DrillPolicy['blocked'], nowMs: number): DrillPolicy['blocked'][number] | undefined {
  const minute = Math.floor((nowMs % dayMs) / 60_000);
  const today = dayNames[new Date(nowMs).getUTCDay()]!;
  const yesterday = dayNames[new Date(nowMs - dayMs).getUTCDay()]!;
  return windows.find(({ days, from, to }) => {
    const [begin, end] = [minuteOf(from), minuteOf(to)];
    if (begin < end) return days.includes(today) && minute >= begin && minute < end;
    return (days.includes(today) && minute >= begin) || (days.includes(yesterday) && minute < end);
  });
}

function minuteOf(clock: string): number {
  return Number(clock.slice(0, 2)) * 60 + Number(clock.slice(3));
}
