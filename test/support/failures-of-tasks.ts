/** Which workflow tasks of a run failed by a fault of ours: the history of a workflow that cannot go on shows them again and again. */
import type { History } from '@temporalio/common/lib/proto-utils';

/**
 * Their messages. A word that comes while a run ends makes Temporal put the end off and ask again; what was under way as
 * somebody terminated the run is closed by Temporal, without a message. Neither is a failure of ours.
 */
export function failuresOfTasks({ events }: History): string[] {
  const isTerminated = Boolean(events?.at(-1)?.workflowExecutionTerminatedEventAttributes);
  return (events ?? [])
    .flatMap(({ workflowTaskFailedEventAttributes: failed }) => (failed ? [failed.failure?.message ?? ''] : []))
    .filter((message) => (message === '' ? !isTerminated : message !== 'UnhandledCommand'));
}
