/** Keeps every protected cell being looked at, for ever: one long activity after another, on whichever failover worker is alive. */
import { ActivityCancellationType, continueAsNew, proxyActivities, workflowInfo } from '@temporalio/workflow';

export interface DetectionActivities {
  /** Tells `PredictiveFailover` of deaths that it sees; ends by itself after most of an hour. */
  detectFailures(): Promise<void>;
}

const { detectFailures } = proxyActivities<DetectionActivities>({
  // A dead worker is noticed after this long.
  heartbeatTimeout: '5 seconds',
  startToCloseTimeout: '1 hour',
  retry: { initialInterval: '1 second', backoffCoefficient: 1 },
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
});

export async function failureDetection(): Promise<void> {
  for (;;) {
    await detectFailures();
    if (workflowInfo().continueAsNewSuggested) await continueAsNew<typeof failureDetection>();
  }
}
