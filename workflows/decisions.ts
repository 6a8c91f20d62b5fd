/** What is told to the outside of a failover: one decision for each phase, override and outcome, pure. */
import type { Failover } from './failover';
import type { DossierEntry, Override } from './messages';
import { isSameReason } from './reasons';

export const decisionKinds = [
  'phase',
  'plan',
  'guard',
  'page',
  'override',
  'outcome',
  'finding',
  'mending',
  'drill',
  'pool',
] as const;
/** `guard`: what holds a failover back, or no longer does. `page`: a person is called. `finding` and `mending` are a reconciliation's, `drill` is the result of a drill as a whole, `pool` what became of a cell for the idle pool. */
export type DecisionKind = (typeof decisionKinds)[number];

/** One decision, as it is recorded and published as a CloudEvent. */
export interface Decision {
  /** The same decision has the same id, however often it is told. */
  id: string;
  kind: DecisionKind;
  /** ISO 8601, workflow time. */
  at: string;
  service: string;
  /** The source cell or, of a finding and of the pool, the cell that was found or made. */
  cell: string;
  /** Workflow id of who decided. */
  by: string;
  /** Of a practice prediction: it says nothing about the health of the cell. */
  drill: boolean;
  /** One sentence for a person. */
  what: string;
  data: Record<string, unknown>;
}

/** What was decided since the failover was last told about; `before` null: since its beginning. */
export function decisionsBetween(before: Failover | null, after: Failover): Decision[] {
  if (before === after) return [];
  return inOrder([...phaseChanges(before, after), ...overrides(before, after), ...outcome(before, after)]);
}

/** What it decided about its own freedom since then, each only when it, or the reason for it, has changed. */
export function considerationsBetween(before: Failover | null, after: Failover): Decision[] {
  if (before === after) return [];
  return inOrder([
    ...plans(before, after),
    ...limits(before, after),
    ...refusedChanges(before, after),
    ...pages(before, after),
  ]);
}

/** By time; those of one moment as they are given. */
export function inOrder(decisions: Decision[]): Decision[] {
  return [...decisions].sort((a, b) => a.at.localeCompare(b.at));
}

function phaseChanges(before: Failover | null, f: Failover): Decision[] {
  const known = new Set(before?.phaseTimes.map((p) => `${p.phase} ${p.atMs}`));
  return f.phaseTimes.flatMap(({ phase, atMs }, i) => {
    if (known.has(`${phase} ${atMs}`)) return [];
    const risk = f.risk && { level: f.risk.last.level, probability: f.risk.last.probability };
    return [
      decision(f, 'phase', atMs, phase, `${f.service}/${f.cell} is ${phase}`, {
        phase,
        before: f.phaseTimes[i - 1]?.phase ?? null,
        why: f.lastWhy,
        risk,
        syntheticCell: f.synthetic?.name ?? null,
        sourceBp: f.traffic.sourceBp,
        syntheticBp: f.traffic.syntheticBp,
        epoch: f.traffic.epoch,
      }),
    ];
  });
}

function plans(before: Failover | null, f: Failover): Decision[] {
  const { plan } = f;
  if (!plan || plan.kind === before?.plan?.kind) return [];
  const { kind, canaryBp, why } = plan;
  const what = `${f.service}/${f.cell}: plan ${kind}${why === undefined ? '' : `; ${why}`}`;
  const data = { plan: kind, before: before?.plan?.kind ?? null, canaryBp, why: why ?? null };
  return [decision(f, 'plan', f.stepAtMs ?? f.startedAtMs, kind, what, data)];
}

/** The guard that holds it back most. */
function limits(before: Failover | null, f: Failover): Decision[] {
  const [was, is] = [before?.limited ?? null, f.limited ?? null];
  const isSame = was?.guard === is?.guard && was?.reach === is?.reach && isSameReason(was?.why, is?.why);
  if (isSame) return [];
  const atMs = f.stepAtMs ?? f.startedAtMs;
  if (!is) {
    const what = `${f.service}/${f.cell} is no longer limited: ${was?.why}`;
    return [decision(f, 'guard', atMs, 'none', what, { guard: null, reach: 'shift', why: null, before: was?.guard })];
  }
  const { guard, reach, why, liftable } = is;
  const what = `${f.service}/${f.cell} is limited to ${reach} (${guard}): ${why}`;
  const data = { guard, reach, why, liftable, before: was?.guard ?? null };
  return [decision(f, 'guard', atMs, `${guard}-${reach}`, what, data)];
}

/** By the load balancer's own guard: the source's load, the synthetic cell's capacity, a stop that came at that moment. */
function refusedChanges(before: Failover | null, f: Failover): Decision[] {
  const refused = f.lastRefusal;
  if (!refused || refused.sinceMs === before?.lastRefusal?.sinceMs) return [];
  const { why, purpose, sinceMs } = refused;
  const what = `${f.service}/${f.cell}: the split was not changed (${purpose}): ${why}`;
  return [decision(f, 'guard', sinceMs, 'split', what, { guard: 'split', reach: null, why, purpose })];
}

function pages(before: Failover | null, f: Failover): Decision[] {
  const known = new Set(before?.pages?.map((p) => p.why));
  return (f.pages ?? []).flatMap(({ atMs, why }, i) => {
    if (known.has(why)) return [];
    const what = `${f.service}/${f.cell} calls for a person: ${why}`;
    return [decision(f, 'page', atMs, `${i}`, what, { why, phase: f.phase })];
  });
}

/** Accepted ones, and those refused by signal; an update that was refused has left no trace to tell of. */
function overrides(before: Failover | null, f: Failover): Decision[] {
  const known = new Set(before?.entries);
  const all = f.entries.filter((entry: DossierEntry) => entry.evidence?.override !== undefined);
  return all.flatMap((entry) => {
    if (known.has(entry)) return [];
    // Two people can order the same in one moment: told one by one, they are two decisions all the same.
    const i = all.filter(({ at }) => at === entry.at).indexOf(entry);
    const order = entry.evidence!.override as Partial<Override> | null;
    const accepted = !entry.what.startsWith('an override was refused');
    const told = { accepted, override: order, phase: entry.phase };
    return [decision(f, 'override', Date.parse(entry.at), `${order?.action ?? 'unreadable'}-${i}`, entry.what, told)];
  });
}

function outcome(before: Failover | null, f: Failover): Decision[] {
  const { conclusion } = f;
  if (!conclusion || before?.conclusion?.atMs === conclusion.atMs) return [];
  const { outcome: ended, reason, atMs } = conclusion;
  return [
    decision(f, 'outcome', atMs, ended, `${f.service}/${f.cell} ended as ${ended}: ${reason}`, {
      outcome: ended,
      reason,
      startedAt: new Date(f.startedAtMs).toISOString(),
      changes: f.changes,
      sourceBp: f.traffic.sourceBp,
      syntheticBp: f.traffic.syntheticBp,
      syntheticCell: f.synthetic?.name ?? null,
    }),
  ];
}

function decision(
  f: Failover,
  kind: DecisionKind,
  atMs: number,
  name: string,
  what: string,
  data: Decision['data'],
): Decision {
  return {
    id: `${f.failover}/${f.runId}/${kind}/${name}/${atMs}`,
    kind,
    at: new Date(atMs).toISOString(),
    service: f.service,
    cell: f.cell,
    by: f.failover,
    drill: Boolean(f.drill),
    what,
    data: { runId: f.runId, ...data },
  };
}
