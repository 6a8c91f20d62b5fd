/** PredictiveFailover with one timer more: what an incompatible change looks like to a history that was made before it. */
import { sleep } from '@temporalio/workflow';
import type { FailoverInput, FailoverResult } from '../../workflows/messages';
import { predictiveFailover } from '../../workflows/predictive-failover';

export async function PredictiveFailover(input: FailoverInput): Promise<FailoverResult> {
  await sleep(1);
  return predictiveFailover(input);
}
