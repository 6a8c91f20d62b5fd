/** What is told to the outside of a failover: one decision for each phase, override and outcome, pure. */
import type { Failover } from './failover';
import type { DossierEntry, Override } from './messages';

export const decisionKinds = ['phase', 'override', 'outcome', 'finding', 'mending', 'drill'] as const;
/** `finding` and `mending` are a reconciliation's, `drill` is the result of a drill as a whole. */
export type DecisionKind = (typeof decisionKinds)[number];

/** One decision, as it is recorded and published as a CloudEvent. */
export interface Decision {
  /** The same decision has the same id, however often it is told. */
  id: string;
  kind: DecisionKind;
  /** ISO 8601, workflow time. */
  at: string;
  service: string;
  /** The source cell or, of a finding, the cell that was found. */
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
  return [...phaseChanges(before, after), ...overrides(before, after), ...outcome(before, after)].sort((a, b) =>
    a.at.localeCompare(b.at),
  );
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

/** Accepted ones, and those refused by signal; an update that was refused has left no trace to tell of. */
function overrides(before: Failover | null, f: Failover): Decision[] {
  const known = new Set(before?.entries);
  const isNew = (entry: DossierEntry) => !known.has(entry) && entry.evidence?.override !== undefined;
  return f.entries.filter(isNew).map((entry, i) => {
    const order = entry.evidence!.override as Partial<Override> | null;
    const accepted = !entry.what.startsWith('an override was refused');
    return decision(f, 'override', Date.parse(entry.at), `${order?.action ?? 'unreadable'}-${i}`, entry.what, {
      accepted,
      override: order,
      phase: entry.phase,
    });
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
