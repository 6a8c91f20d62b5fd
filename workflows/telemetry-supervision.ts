/** Keeps telemetry being scored, for ever: one long activity after another, on whichever scoring worker is alive. */
import { ActivityCancellationType, continueAsNew, proxyActivities, workflowInfo } from '@temporalio/workflow';
import type { ScoreTelemetryActivities } from '../activities/score-telemetry';

export interface SupervisionInput {
  /** Task queue of the scoring workers. */
  scoringTaskQueue: string;
}

export async function telemetrySupervision(input: SupervisionInput): Promise<void> {
  const { scoreTelemetry } = proxyActivities<ScoreTelemetryActivities>({
    taskQueue: input.scoringTaskQueue,
    // A dead worker is noticed after this long; the loop beats every second.
    heartbeatTimeout: '5 seconds',
    // The activity ends by itself before, to keep histories short.
    startToCloseTimeout: '1 hour',
    retry: { initialInterval: '1 second', backoffCoefficient: 1 },
    cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  });
  for (;;) {
    await scoreTelemetry();
    if (workflowInfo().continueAsNewSuggested) await continueAsNew<typeof telemetrySupervision>(input);
  }
}
