/** Carries out one step: the activity, timer or wait that belongs to it, with its time limits and its retries. */
import type { ActivityOptions } from '@temporalio/workflow';
import {
  ActivityCancellationType,
  ActivityFailure,
  CancellationScope,
  condition,
  isCancellation,
  proxyActivities,
} from '@temporalio/workflow';
import { measuresOf } from './canary';
import { despiteSilence } from './despite-silence';
import { doing, dossierOf } from './dossier';
import type { Failover, Judgement } from './failover';
import { percent } from './failover';
import { baselinesOf } from './plan';
import type {
  FailoverActivities,
  JudgeRequest,
  ShiftStep,
  Step,
  StepResult,
  SyntheticSubject,
  WatchStep,
} from './steps';

const activities = proxyActivities<FailoverActivities>({ startToCloseTimeout: '1 minute' });

const retry = { initialInterval: '200ms', backoffCoefficient: 2, maximumInterval: '5s' } as const;

/** A short call that leads forward: without progress for two minutes the failover turns back. */
const forward: ActivityOptions = {
  startToCloseTimeout: '20s',
  scheduleToCloseTimeout: '2 minutes',
  heartbeatTimeout: '4s',
  retry,
};
/** A look that is worth nothing when it comes late: it is taken again later. */
const quick: ActivityOptions = { startToCloseTimeout: '5s', scheduleToCloseTimeout: '10s', retry };
/** A short call that must come to its end, however long that takes: the way back, and the rescue from a dead cell. */
const untilDone: ActivityOptions = { startToCloseTimeout: '1 minute', heartbeatTimeout: '4s', retry };
/** Work that takes its time and heartbeats. */
const longWork: ActivityOptions = {
  startToCloseTimeout: '5 minutes',
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  retry: { ...retry, maximumAttempts: 5 },
};
const longWorkMs = 600_000;
/** Only looks: it is left without waiting for it. */
const watching: ActivityOptions = {
  heartbeatTimeout: '3s',
  cancellationType: ActivityCancellationType.TRY_CANCEL,
  retry: { ...retry, maximumInterval: '1s' },
};

/** Takes the step. `interrupted` says whether it is not wanted any more; only long ones ask. Never throws for a failed activity. */
export async function perform(f: Failover, step: Step, nowMs: number, interrupted: () => boolean): Promise<StepResult> {
  try {
    return await act(f, step, nowMs, interrupted);
  } catch (err) {
    if (isCancellation(err)) return { kind: 'nothing' };
    if (err instanceof ActivityFailure) return { kind: 'failed', reason: err.cause?.message ?? err.message };
    throw err;
  }
}

async function act(f: Failover, step: Step, nowMs: number, interrupted: () => boolean): Promise<StepResult> {
  const subject = { failover: f.failover, service: f.service, cell: f.cell };
  const summary = `${doing[step.kind]}: ${step.why}`.slice(0, 180);
  switch (step.kind) {
    case 'load':
      return {
        kind: 'loaded',
        context: await activities.loadContext.executeWithOptions({ ...forward, summary }, [
          { ...subject, ...(f.drill && { drill: f.drill }) },
        ]),
      };
    case 'await-turn': {
      const { maxConcurrentFailovers } = f.context!.policy;
      const options = { ...watching, startToCloseTimeout: '1 hour', summary } as const;
      const request = { ...subject, maxConcurrentFailovers };
      await unless(interrupted, () => activities.awaitTurn.executeWithOptions(options, [request]));
      return { kind: 'turn' };
    }
    case 'survey': {
      const facts = await activities.surveyFleet.executeWithOptions({ ...quick, summary }, [subject]);
      return { kind: 'surveyed', facts };
    }
    case 'ensure': {
      const { blueprint, zone } = f.context!;
      const request = { ...subject, blueprint, zone };
      const ensure = () =>
        despiteSilence(longWorkMs, (limits) =>
          activities.ensureSyntheticCell.executeWithOptions({ ...longWork, ...limits, summary }, [request]),
        );
      return { kind: 'ensured', result: await unless(interrupted, ensure) };
    }
    case 'warm': {
      const request = syntheticSubject(f, step);
      const warm = () =>
        despiteSilence(longWorkMs, (limits) =>
          activities.warmSyntheticCell.executeWithOptions({ ...longWork, ...limits, summary }, [request]),
        );
      return { kind: 'warmed', result: await unless(interrupted, warm) };
    }
    case 'arm': {
      const result = await activities.armCell.executeWithOptions({ ...forward, summary }, [syntheticSubject(f, step)]);
      return { kind: 'armed', result };
    }
    case 'shift':
      return { kind: 'shifted', result: await shift(f, step) };
    case 'watch': {
      const forMs = Math.max(1, step.untilMs - nowMs);
      const options = { ...watching, startToCloseTimeout: forMs + 60_000, summary };
      const request = { ...watchRequest(f, step, nowMs), forMs };
      const watch = () => activities.watchFailover.executeWithOptions(options, [request]);
      return { kind: 'observed', observation: await unless(interrupted, watch) };
    }
    case 'wait':
      if (step.untilMs === null) await condition(interrupted);
      else await condition(interrupted, Math.max(1, step.untilMs - nowMs), { summary });
      return { kind: 'nothing' };
    case 'rest': {
      const request = syntheticSubject(f, step);
      const rested = await activities.restAtIdle.executeWithOptions({ ...untilDone, summary }, [request]);
      return { kind: 'done', ...(rested && { rested }) };
    }
    case 'retire': {
      const request = { ...syntheticSubject(f, step), syntheticCell: f.synthetic?.name ?? null };
      await activities.retireSyntheticCell.executeWithOptions({ ...untilDone, summary }, [request]);
      return { kind: 'done' };
    }
    case 'save':
      await activities.saveDossier.executeWithOptions(
        { startToCloseTimeout: '20s', scheduleToCloseTimeout: '1 hour', heartbeatTimeout: '4s', retry, summary },
        [dossierOf(f)],
      );
      return { kind: 'done' };
    case 'label':
      // Nobody was sent copies where the service mirrors nothing.
      if (f.context?.mirrorBp !== undefined) {
        await activities.releaseSource.executeWithOptions({ ...quick, summary }, [subject]);
      }
      return { kind: 'nothing' };
    case 'conclude':
    case 'begin-anew':
    case 'finish':
      return { kind: 'nothing' };
  }
}

async function shift(f: Failover, step: ShiftStep) {
  const { minSourceLoad } = f.context!.policy;
  const { purpose, targetBp, coverInstances } = step;
  const request = {
    ...syntheticSubject(f, step),
    byPerson: purpose === 'ordered' || f.order !== null,
    purpose,
    targetBp,
    knownBp: f.traffic.syntheticBp,
    coverInstances,
    minSourceLoad,
    blueprint: f.context!.blueprint,
  };
  const isForward = purpose === 'canary' || purpose === 'step' || purpose === 'emergency';
  const options = { ...(isForward ? forward : untilDone), summary: `${purpose} to ${percent(targetBp)}: ${step.why}` };
  return activities.shiftTraffic.executeWithOptions({ ...options, summary: options.summary.slice(0, 180) }, [request]);
}

function syntheticSubject(f: Failover, step: Step): SyntheticSubject {
  return {
    failover: f.failover,
    service: f.service,
    cell: f.cell,
    syntheticCell: f.synthetic?.name ?? '',
    // Changes are numbered over the whole failover: attempts of one share the key, no two changes do.
    key: `${f.failover}/${f.runId}/${step.kind}/${f.changes}`,
    reason: step.why,
    byPerson: f.order !== null,
  };
}

function watchRequest(f: Failover, step: WatchStep, nowMs: number) {
  const { blueprint, healthCheckPath, healthCheckIntervalMs } = f.context!;
  return {
    failover: f.failover,
    service: f.service,
    cell: f.cell,
    syntheticCell: f.synthetic?.name ?? '',
    blueprint,
    healthCheckPath,
    healthCheckIntervalMs,
    known: step.known,
    judge: judgeRequest(f, step, nowMs),
  };
}

function judgeRequest(f: Failover, step: WatchStep, nowMs: number): JudgeRequest | null {
  const { judgement } = step;
  if (!judgement) return null;
  const { policy, sloErrorRatio } = f.context!;
  const wanted = { open: 'any', inconclusive: 'any', good: 'bad', bad: 'good' } as const;
  const intervalMs = (judgement.of === 'source' ? policy.reductionIntervalS : policy.stepIntervalS) * 1000;
  return {
    of: judgement.of,
    baseline: judgement.baseline,
    minRequests: policy.canaryMinRequests,
    maxErrorRatio: judgement.of === 'source' ? Math.max(policy.maxErrorRatio, sloErrorRatio) : policy.maxErrorRatio,
    notBeforeMs: Math.max(0, judgement.notBeforeMs - nowMs),
    intervalMs,
    wanted: wanted[judgement.verdict],
    ...(judgement.of === 'synthetic' && f.context!.fleet && { canary: canaryRequest(f, judgement) }),
  };
}

function canaryRequest(f: Failover, { peers }: Judgement): NonNullable<JudgeRequest['canary']> {
  const { policy, sloLatencyMs } = f.context!;
  const isShort = f.plan !== null && f.plan !== undefined && f.plan.kind !== 'full-canary';
  return {
    measures: measuresOf(policy, isShort),
    baselines: { ...baselinesOf(f), peers: peers ?? null },
    sloLatencyMs: sloLatencyMs ?? null,
  };
}

/** Runs until it is done, or until it is not wanted any more: then it is cancelled and ends as cancelled. */
async function unless<T>(interrupted: () => boolean, run: () => Promise<T>): Promise<T> {
  const scope = new CancellationScope();
  let isSettled = false;
  const running = scope.run(run);
  const settle = () => (isSettled = true);
  running.then(settle, settle);
  await condition(() => isSettled || interrupted());
  if (!isSettled) scope.cancel();
  return running;
}
