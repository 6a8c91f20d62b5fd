/** The failover as people read it afterwards: the dossier and its lines. */
import type { Failover } from './failover';
import type { Dossier } from './messages';
import type { Step } from './steps';

/** The beginning explains the cause and the end the outcome: a very long dossier loses lines in the middle. */
const firstLines = 60;
const lastLines = 240;

/** A line in the dossier: one sentence, with the evidence. */
export function note(f: Failover, nowMs: number, what: string, evidence?: Record<string, unknown>): Failover {
  const entry = { at: iso(nowMs), phase: f.phase, what, ...(evidence ? { evidence } : {}) };
  const entries = [...f.entries, entry];
  if (entries.length > firstLines + lastLines) entries.splice(firstLines, 1);
  return { ...f, entries };
}

/** Everything that explains the failover. Answered by the query `dossier`, kept in Postgres. */
export function dossierOf(f: Failover): Dossier {
  return {
    failover: f.failover,
    runId: f.runId,
    service: f.service,
    cell: f.cell,
    ...(f.drill && { drill: f.drill }),
    syntheticCell: f.synthetic?.name ?? null,
    startedAt: iso(f.startedAtMs),
    endedAt: f.conclusion ? iso(f.conclusion.atMs) : null,
    phase: f.phase,
    outcome: f.conclusion?.outcome ?? null,
    reason: f.conclusion?.reason ?? null,
    phaseTimes: f.phaseTimes.map(({ phase, atMs }) => ({ phase, at: iso(atMs) })),
    firstRisk: f.risk?.first ?? null,
    lastRisk: f.risk?.last ?? null,
    steps: f.steps,
    ...(f.plan && { plan: f.plan.kind }),
    ...(f.label && { label: f.label }),
    ...(f.pages && { pages: f.pages.map(({ atMs, why }) => ({ at: iso(atMs), why })) }),
    ...(f.took && { took: f.took }),
    entries: f.entries,
  };
}

/** What a step does, for a person: summaries of activities and timers begin with it. */
export const doing: Record<Step['kind'], string> = {
  load: 'reading policy and blueprint',
  'await-turn': 'waiting for its turn',
  survey: 'looking at the rest of the fleet',
  ensure: 'making the synthetic cell',
  warm: 'warming the synthetic cell',
  arm: 'arming the synthetic cell',
  shift: 'changing the split',
  watch: 'watching',
  wait: 'waiting',
  rest: 'resting the synthetic cell',
  retire: 'retiring the synthetic cell',
  conclude: 'ending',
  label: 'judging the prediction',
  save: 'keeping the dossier',
  'begin-anew': 'beginning anew',
  finish: 'finished',
};

export function iso(ms: number): string {
  return new Date(ms).toISOString();
}
