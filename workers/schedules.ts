/** Temporal Schedules of Understudy: the reconciliation, the care for idle pools and for what cells are there, and the drills of the services that ask for them. */
import { ScheduleAlreadyRunning, ScheduleNotFoundError, type Client, type ScheduleOptions } from '@temporalio/client';
import type { Logger } from 'pino';
import type { ServiceRecord } from '../blueprints/records';
import type { Settings } from '../blueprints/settings';
import { workflowTypes } from '../workflows/messages';

export const reconciliationScheduleId = 'understudy-reconciliation';

export const poolScheduleId = 'understudy-pool';
export const cellsScheduleId = 'understudy-cells';

export function drillScheduleId(service: string): string {
  return `understudy-drill/${service}`;
}

type Wanted = Pick<ScheduleOptions, 'scheduleId' | 'spec' | 'action' | 'policies'>;

/** Every schedule that should be, from what the settings and the services say. */
export function wantedSchedules(settings: Settings, services: readonly ServiceRecord[]): Wanted[] {
  const { failoverTaskQueue: taskQueue } = settings.temporal;
  const { everyS, graceS } = settings.reconciliation;
  const { poolEveryS, lookEveryS, sweep } = settings.cells;
  const regular = (
    scheduleId: string,
    seconds: number,
    workflow: { type: string; id: string; input: object },
  ): Wanted => ({
    scheduleId,
    spec: { intervals: [{ every: Math.round(seconds * 1000) }] },
    // A round that was missed is made up by the next.
    policies: { overlap: 'SKIP', catchupWindow: '10s' },
    action: {
      type: 'startWorkflow',
      workflowType: workflow.type,
      workflowId: workflow.id,
      taskQueue,
      args: [workflow.input],
    },
  });
  const regulars = [
    regular(reconciliationScheduleId, everyS, {
      ...{ type: workflowTypes.reconcile, id: 'reconcile' },
      input: { dryRun: false, graceS },
    }),
    regular(poolScheduleId, poolEveryS, {
      ...{ type: workflowTypes.keepPools, id: 'keep-pools' },
      input: { backOffS: poolEveryS },
    }),
    regular(cellsScheduleId, lookEveryS, {
      ...{ type: workflowTypes.lookAfterCells, id: 'look-after-cells' },
      input: { remove: sweep === 'remove' },
    }),
  ];
  const drills = services.flatMap(({ name, spec: { policy } }): Wanted[] => {
    if (!policy.drill || policy.autonomy === 'observe' || policy.autonomy === 'advise') return [];
    return [
      {
        scheduleId: drillScheduleId(name),
        spec: { intervals: [{ every: Math.round(policy.drill.everyH * 3_600_000) }] },
        // A drill that failed is looked at by a person before the next.
        policies: { overlap: 'SKIP', pauseOnFailure: true, catchupWindow: '1 minute' },
        action: {
          type: 'startWorkflow',
          workflowType: workflowTypes.failoverDrill,
          workflowId: `drill/${name}`,
          taskQueue,
          args: [{ service: name }],
        },
      },
    ];
  });
  return [...regulars, ...drills];
}

/** Creates what is not there yet and brings the rest up to date; a pause that a person, or a failure, set stays. */
export async function ensureSchedules(client: Client, wanted: readonly Wanted[]): Promise<void> {
  for (const schedule of wanted) {
    try {
      await client.schedule.create(schedule);
    } catch (err) {
      if (!(err instanceof ScheduleAlreadyRunning)) throw err;
      const { spec, action, policies } = schedule;
      await client.schedule.getHandle(schedule.scheduleId).update((before) => ({
        ...before,
        spec,
        action,
        policies: { ...before.policies, ...policies },
      }));
    }
  }
  const ids = new Set(wanted.map(({ scheduleId }) => scheduleId));
  for await (const { scheduleId } of client.schedule.list()) {
    if (!scheduleId.startsWith('understudy-drill/') || ids.has(scheduleId)) continue;
    await client.schedule
      .getHandle(scheduleId)
      .delete()
      .catch((err: unknown) => {
        if (!(err instanceof ScheduleNotFoundError)) throw err;
      });
  }
}

export interface ScheduleLoop {
  stop(): Promise<void>;
}

const lookEveryMs = 10_000;

/** Keeps the schedules as they should be: what changes in a policy is in force within seconds. Asks Temporal only then. */
export function keepSchedules(
  client: Client,
  settings: Settings,
  services: () => Promise<ServiceRecord[]>,
  log: Logger,
): ScheduleLoop {
  let inForce = '';
  let running = Promise.resolve();
  const round = async (): Promise<void> => {
    try {
      const wanted = wantedSchedules(settings, await services());
      if (JSON.stringify(wanted) === inForce) return;
      await ensureSchedules(client, wanted);
      inForce = JSON.stringify(wanted);
      log.info({ schedules: wanted.map((w) => w.scheduleId) }, `${wanted.length} schedules are in force`);
    } catch (error) {
      log.warn(`schedules could not be brought up to date: ${(error as Error).message}`);
    }
  };
  const next = (): void => void (running = running.then(round));
  next();
  const timer = setInterval(next, lookEveryMs);
  return {
    stop: async () => {
      clearInterval(timer);
      await running;
    },
  };
}
