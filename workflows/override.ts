/** What a person may order in which phase: one table for signal and update, and what an accepted order changes. */
import { note } from './dossier';
import type { Failover } from './failover';
import { isArmed, largestShare, percent, shareAtStake } from './failover';
import type { Override, OverrideAction, OverrideAnswer, Phase } from './messages';
import { overrideActions } from './messages';

/**
 * Phases in which an action can be accepted at all. In `failed-over` and `cooldown` nothing is left to steer. A rule of
 * its own may still refuse it, see `refusal`.
 */
export const acceptedIn: Record<OverrideAction, readonly Phase[]> = {
  approve: ['assessing', 'provisioning', 'warming', 'armed', 'canary', 'shifting', 'draining'],
  hold: ['assessing', 'provisioning', 'warming', 'armed', 'canary', 'shifting', 'draining'],
  resume: ['assessing', 'provisioning', 'warming', 'armed', 'canary', 'shifting', 'draining'],
  step: ['armed', 'canary', 'shifting', 'draining'],
  complete: ['armed', 'canary', 'shifting', 'draining'],
  promote: ['shifting'],
  drain: ['assessing', 'provisioning', 'warming', 'armed', 'canary', 'shifting', 'draining'],
  abort: ['assessing', 'provisioning', 'warming', 'armed', 'canary', 'shifting', 'draining'],
};

/** Whether the override would be accepted now, and why not. Changes nothing: it is also the update's validator. */
export function answer(f: Failover, message: unknown): OverrideAnswer {
  const problem = whatIsWrongWith(message);
  if (problem) return { accepted: false, message: problem };
  const override = message as Override;
  if (f.conclusion || !acceptedIn[override.action].includes(f.phase)) {
    const end = f.conclusion ? `: it has ended as ${f.conclusion.outcome}` : '';
    return { accepted: false, message: `${override.action} cannot be done while the failover is ${f.phase}${end}` };
  }
  const refused = refusal(f, override);
  if (refused) return { accepted: false, message: refused };
  return { accepted: true, message: whatFollows(f, override) };
}

/** The order carried into what the failover knows; `decide` does the rest. Refused ones leave a line in the dossier. */
export function hearOverride(f: Failover, message: unknown, nowMs: number): Failover {
  const answered = answer(f, message);
  if (!answered.accepted)
    return note(f, nowMs, `an override was refused: ${answered.message}`, evidenceOf(message, answered));
  const override = message as Override;
  const { action, by, reason } = override;
  const heard = note(f, nowMs, `${by} ordered ${action}: ${reason}`, evidenceOf(override, answered));
  const order = { by, reason };
  switch (action) {
    case 'approve':
      return { ...heard, approved: order };
    case 'hold':
      return { ...heard, held: { ...order, sinceMs: nowMs } };
    case 'resume':
      return { ...heard, held: null };
    case 'step':
      // A standing order to go back would undo the step at once.
      return { ...heard, orderedStepBp: override.shareBp ?? 0, order: null };
    case 'abort':
    case 'complete':
    case 'promote':
    case 'drain':
      // An order is newer than the hold and from a person as well: it ends the hold.
      return { ...heard, order: { ...order, kind: action }, orderedStepBp: null, held: null };
  }
}

/** With the answer where somebody means to look for it. */
function evidenceOf(message: unknown, answered: OverrideAnswer): Record<string, unknown> {
  const isLookedFor = (message as Override | null)?.id !== undefined;
  return { override: message, ...(isLookedFor && { answer: answered }) };
}

/** Cancelling the workflow in Temporal's UI asks for the gentlest way out: give back, then end. */
export function hearCancellation(f: Failover, nowMs: number): Failover {
  const order = { kind: 'cancel' as const, by: 'Temporal', reason: 'the workflow was cancelled' };
  return note(
    { ...f, order, orderedStepBp: null, held: null },
    nowMs,
    'the workflow was cancelled: traffic goes back first',
  );
}

function refusal(f: Failover, o: Override): string | null {
  switch (o.action) {
    case 'approve':
      if (f.approved) return `${f.approved.by} has approved already`;
      if (f.limited?.liftable) return null;
      if (f.context && f.context.policy.autonomy !== 'approve') {
        return `the policy's autonomy is ${f.context.policy.autonomy}: nothing waits for approval`;
      }
      return null;
    case 'hold':
      return f.held ? `it is held already, by ${f.held.by}: ${f.held.reason}` : null;
    case 'resume':
      return f.held ? null : 'nothing is held';
    case 'step':
      return refusedShare(f, o.shareBp);
    case 'complete':
      if (!isArmed(f)) return 'the synthetic cell is not armed yet';
      return largestShare(f) === 0 ? 'the synthetic cell has no capacity to spare' : null;
    case 'promote':
      return f.traffic.sourceBp > 0 || f.traffic.syntheticBp === 0
        ? `${f.cell} still carries ${percent(f.traffic.sourceBp)}; complete first`
        : null;
    case 'drain':
    case 'abort':
      return f.source.state === 'dead' && isArmed(f)
        ? `${f.cell} is dead: giving its traffic back would lose it; hold or complete instead`
        : null;
  }
}

function refusedShare(f: Failover, shareBp: number | undefined): string | null {
  if (!isArmed(f)) return 'the synthetic cell is not armed yet';
  if (shareBp === undefined || !Number.isInteger(shareBp) || shareBp < 1) {
    return 'step needs shareBp, a whole number of basis points from 1; use drain or abort to give all back';
  }
  if (shareBp > shareAtStake(f))
    return `${percent(shareBp)} is more than the ${percent(shareAtStake(f))} at stake here`;
  if (shareBp > largestShare(f)) {
    return `${percent(shareBp)} is more than the synthetic cell's capacity, ${percent(largestShare(f))}`;
  }
  return null;
}

function whatFollows(f: Failover, o: Override): string {
  switch (o.action) {
    case 'approve':
      return `traffic moves as soon as the risk justifies it${despite(f.limited)}`;
    case 'hold':
      return 'every automatic change is frozen, also on a death of the source, until resume; the cover at priority 1 stays';
    case 'resume':
      return 'the failover goes on';
    case 'step':
      return `the synthetic cell takes ${percent(o.shareBp ?? 0)}${f.held ? '; the hold stays' : ', then the failover goes on by the risk'}`;
    case 'complete':
      return `the synthetic cell takes ${percent(largestShare(f))} in one change`;
    case 'promote':
      return 'the synthetic cell keeps the traffic for good and the failover ends';
    case 'drain':
      return 'traffic goes back in steps, gated on the health of the source';
    case 'abort':
      return 'traffic goes back at once and the failover ends';
  }
}

/** What an approval lifts, beside the wait for it. */
function despite(limited: Failover['limited']): string {
  return limited?.liftable && limited.guard !== 'autonomy' ? `, although ${limited.why}` : '';
}

function whatIsWrongWith(message: unknown): string | null {
  const o = message as Partial<Override> | null;
  if (typeof o !== 'object' || o === null) return 'an override is an object {action, by, reason}';
  if (!overrideActions.includes(o.action as OverrideAction)) {
    return `unknown action ${JSON.stringify(o.action)}; expected one of ${overrideActions.join(', ')}`;
  }
  if (typeof o.by !== 'string' || o.by.trim() === '') return 'by is missing: say who orders this';
  if (typeof o.reason !== 'string' || o.reason.trim() === '') return 'reason is missing: say why';
  if (o.by.length > 200 || o.reason.length > 2000) return 'by or reason is too long (200 and 2,000 characters)';
  if (o.shareBp !== undefined && typeof o.shareBp !== 'number') return 'shareBp is not a number';
  return null;
}
