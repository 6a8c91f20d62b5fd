/** Tells the failover workflow of a risk: starts it if need be, and signals it, in one durable call. */
import { type Client, WorkflowNotFoundError } from '@temporalio/client';
import { steering } from '../workflows/current-details';
import { failoverWorkflowId, signalNames, workflowTypes, type FailoverInput } from '../workflows/messages';
import type { RiskEvent } from './contracts';
import type { RiskNotifier } from './risk-outbox';

const callTimeoutMs = 4_000;

export class TemporalNotifier implements RiskNotifier {
  constructor(
    private readonly client: Client,
    private readonly taskQueue: string,
  ) {}

  async notify(event: RiskEvent): Promise<void> {
    await this.client.withDeadline(Date.now() + callTimeoutMs, () => this.send(event));
  }

  private async send(event: RiskEvent): Promise<void> {
    const { service, cell } = event;
    const workflowId = failoverWorkflowId(service, cell);
    if (event.level === 'clear') {
      // The end of a risk is no reason to start anything: a failover that is over has nothing left to hear.
      try {
        await this.client.workflow.getHandle(workflowId).signal(signalNames.riskChanged, event);
      } catch (error) {
        if (!(error instanceof WorkflowNotFoundError)) throw error;
      }
      return;
    }
    const input: FailoverInput = { service, cell };
    await this.client.workflow.signalWithStart(workflowTypes.predictiveFailover, {
      workflowId,
      taskQueue: this.taskQueue,
      args: [input],
      staticSummary: `${service} / ${cell}: ${event.observed ? 'seen' : 'predicted'} to fail`,
      staticDetails: steering,
      priority: { priorityKey: 1 },
      signal: signalNames.riskChanged,
      signalArgs: [event],
    });
  }
}
