/** Our workflows with one timer more: what an incompatible change looks like to a history that was made before it. */
import { sleep } from '@temporalio/workflow';
import type { DrillInput, DrillResult } from '../../workflows/drill';
import { failoverDrill } from '../../workflows/drill';
import type { FailoverInput, FailoverResult } from '../../workflows/messages';
import { predictiveFailover } from '../../workflows/predictive-failover';

export async function PredictiveFailover(input: FailoverInput): Promise<FailoverResult> {
  await sleep(1);
  return predictiveFailover(input);
}

export async function FailoverDrill(input: DrillInput): Promise<DrillResult> {
  await sleep(1);
  return failoverDrill(input);
}
