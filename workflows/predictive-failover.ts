/**
 * The durable failover of one cell, as the operational flow reads: hear the risk, decide the next step, take it, record
 * what it came to. Everything it knows is one value (`Failover`); every decision is a pure function of it and the time.
 */
import {
  CancellationScope,
  allHandlersFinished,
  condition,
  continueAsNew,
  defineQuery,
  defineSignal,
  defineUpdate,
  isCancellation,
  patched,
  setCurrentDetails,
  setHandler,
  upsertMemo,
  upsertSearchAttributes,
  workflowInfo,
} from '@temporalio/workflow';
import { ApplicationFailure, CancelledFailure, defineSearchAttributeKey } from '@temporalio/common';
import type { RiskEvent } from '../prediction/contracts';
import { decide, stillServes } from './decide';
import { details } from './current-details';
import { dossierOf } from './dossier';
import type { Failover } from './failover';
import { begin } from './failover';
import { hearRisk } from './hear';
import type { Dossier, FailoverInput, FailoverResult, Override, OverrideAnswer } from './messages';
import { causeOf } from './guards';
import { causeMemo, queryNames, signalNames, updateNames } from './messages';
import { answer, hearCancellation, hearOverride } from './override';
import { perform } from './perform';
import { intend, record } from './record';
import type { Step, StepResult } from './steps';
import { DecisionTeller } from './tell-decisions';

export const riskChanged = defineSignal<[RiskEvent]>(signalNames.riskChanged);
export const overrideSignal = defineSignal<[Override]>(signalNames.override);
export const overrideUpdate = defineUpdate<OverrideAnswer, [Override]>(updateNames.override);
export const dossierQuery = defineQuery<Dossier>(queryNames.dossier);

/**
 * Started by a risk (`signalWithStart`); ends with an outcome, after a cooldown that absorbs late signals. `show` is for
 * who replays a history: it is given the way to the dossier at every moment of it.
 */
export async function predictiveFailover(
  input: FailoverInput,
  show: (dossier: () => Dossier) => void = () => undefined,
): Promise<FailoverResult> {
  let failover = input.continuing ?? begin(input, workflowInfo().runId, now());
  // Histories from before give their label at the end itself.
  if (!input.continuing && patched('label-past-horizon')) failover = { ...failover, watchesPastHorizon: true };
  if (!input.continuing && patched('undecided-shift-ends')) failover = { ...failover, endsUndecided: true };
  // Histories from before tried a way back that nobody could take for ever.
  if (!input.continuing && patched('refused-way-back-is-held')) failover = { ...failover, boundsRefusedWayBack: true };
  let told = '';
  // Histories from before decisions were told have none to tell.
  const decisions = patched('decision-events')
    ? new DecisionTeller(input.continuing ?? null, patched('plan-and-guard-events'))
    : null;
  show(() => dossierOf(failover));
  if (input.firstRisk) failover = hearRisk(failover, input.firstRisk, now());

  setHandler(riskChanged, (event) => void (failover = hearRisk(failover, event, now())), {
    description:
      'A risk event of the scoring worker: {eventId, episodeId, service, cell, at, level, probability, ...}.',
  });
  setHandler(overrideSignal, (order) => obey(order), {
    description: 'What a person orders: {action, by, reason, shareBp?}. Accepted also while no worker runs.',
  });
  setHandler(overrideUpdate, (order) => accept(order), {
    description: 'What a person orders: {action, by, reason, shareBp?}. Answers what follows, or why not.',
    validator: refuseWhatCannotBe,
  });
  setHandler(dossierQuery, () => dossierOf(failover), {
    description: 'Everything that explains the failover: risk, decisions, steps, evidence, outcome.',
  });

  return whateverHappens(async () => {
    for (;;) {
      const step = decide(failover, now());
      failover = intend(failover, step, now());
      tell(step);
      if (step.kind === 'finish') return end();
      if (step.kind === 'begin-anew') return await beginAnew(step.event);
      if (historyIsLong(step)) return await continueWithFreshHistory();

      // Messages change the failover while the step is carried out: what it is now is read after the wait, not before.
      const result = await carryOut(step);
      failover = record(failover, step, result, now());
    }
  });

  /** Where it stands, for a reader of Temporal's UI and, whenever the phase changes, for lists. */
  function tell(step: Step): void {
    setCurrentDetails(details(failover, step));
    decisions?.tell(failover);
    const isDrillNoMore = input.drill !== undefined && !failover.drill;
    const standing = `${failover.phase} ${failover.conclusion?.outcome ?? ''} ${isDrillNoMore}`;
    if (standing === told) return;
    told = standing;
    const kind = isDrillNoMore ? [{ key: kindKey, value: 'prediction' }] : [];
    upsertSearchAttributes([...searchable(failover), ...kind]);
    // Absent in runs from before the fleet was looked at.
    if (failover.context?.fleet) upsertMemo({ [causeMemo]: causeOf(failover) });
  }

  /** The step itself, left early when a message or a result makes another one better. */
  async function carryOut(step: Step): Promise<StepResult> {
    return perform(failover, step, now(), () => !stillServes(failover, step, now()));
  }

  /** Gives the traffic back also when the workflow is cancelled: the cancellation is heard as an order, and obeyed at the end. */
  async function whateverHappens<T>(flow: () => Promise<T>): Promise<T> {
    CancellationScope.current().cancelRequested.catch((err: unknown) => {
      if (isCancellation(err)) failover = hearCancellation(failover, now());
    });
    return CancellationScope.nonCancellable(flow);
  }

  function accept(order: Override): OverrideAnswer {
    const reply = answer(failover, order);
    obey(order);
    return reply;
  }

  /** What was ordered is told at once, also in the middle of a long step. */
  function obey(order: Override): void {
    failover = hearOverride(failover, order, now());
    decisions?.tell(failover);
  }

  /** Synchronous, so that it validates: a refused update leaves no trace in the history. */
  function refuseWhatCannotBe(order: Override): void {
    const { accepted, message } = answer(failover, order);
    if (accepted) return;
    const refusal = ApplicationFailure.nonRetryable(message, 'OverrideRefused');
    // Temporal's UI shows both: to a person the line of code says nothing.
    refusal.stack = '';
    throw refusal;
  }

  async function end(): Promise<FailoverResult> {
    await nothingUnderWay();
    if (failover.order?.kind === 'cancel') throw new CancelledFailure('The failover was cancelled; see its dossier.');
    const { outcome, reason } = failover.conclusion!;
    return { outcome, reason };
  }

  /** A new run begins, or this one ends, with nothing left unsaid. */
  async function nothingUnderWay(): Promise<void> {
    await condition(allHandlersFinished);
    await decisions?.settled();
  }

  async function beginAnew(firstRisk: RiskEvent): Promise<never> {
    await nothingUnderWay();
    return continueAsNew<typeof predictiveFailover>({ service: input.service, cell: input.cell, firstRisk });
  }

  async function continueWithFreshHistory(): Promise<never> {
    await nothingUnderWay();
    return continueAsNew<typeof predictiveFailover>({ service: input.service, cell: input.cell, continuing: failover });
  }
}

/** Only between two waits: nothing is under way then that the next run would not take up. */
function historyIsLong(step: Step): boolean {
  return workflowInfo().continueAsNewSuggested && (step.kind === 'watch' || step.kind === 'wait');
}

const phaseKey = defineSearchAttributeKey('FailoverPhase', 'KEYWORD');
const serviceKey = defineSearchAttributeKey('FailoverService', 'KEYWORD');
const cellKey = defineSearchAttributeKey('FailoverCell', 'KEYWORD');
const outcomeKey = defineSearchAttributeKey('FailoverOutcome', 'KEYWORD');
const kindKey = defineSearchAttributeKey('FailoverKind', 'KEYWORD');
const riskKey = defineSearchAttributeKey('RiskScore', 'DOUBLE');

/** What lists of failovers show and filter by. */
function searchable(f: Failover) {
  return [
    { key: phaseKey, value: f.phase },
    { key: serviceKey, value: f.service },
    { key: cellKey, value: f.cell },
    ...(f.risk ? [{ key: riskKey, value: f.risk.last.probability }] : []),
    ...(f.conclusion ? [{ key: outcomeKey, value: f.conclusion.outcome }] : []),
  ];
}

/** Workflow time: the server's, the same in a replay. */
function now(): number {
  return Date.now();
}
