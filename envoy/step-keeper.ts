/**
 * Finishes steps that nobody waits for any more: of a control plane that was killed between a proxy's refusal and the
 * roll-back, or before the refusal came. Any other does it, or the same one started again; once, by adoption.
 */
import type { Logger } from 'pino';
import type { OpenStep } from '../blueprints/open-steps';
import type { Replica } from './replicas/replica';
import type { TrafficChanges } from './traffic-changes';
import type { TrafficStore } from './traffic-store';

export class StepKeeper {
  private readonly finishing = new Set<string>();
  /** Why a step could not be finished, by service; told once. */
  private readonly told = new Map<string, string>();

  constructor(
    private readonly steps: TrafficStore['steps'],
    private readonly replica: Pick<Replica, 'id' | 'canJudge' | 'isGone'>,
    private readonly changes: Pick<TrafficChanges, 'isUnderWay' | 'finish'>,
    private readonly log: Logger,
  ) {}

  /** Called again and again; does not wait until what it finds is finished. */
  async review(): Promise<void> {
    const { steps, replica } = this;
    if (!steps || !replica.canJudge) return;
    for (const step of await steps.list()) {
      const { service } = step;
      if (this.finishing.has(service) || !this.isLeft(step) || !(await steps.adopt(step, replica.id))) continue;
      this.finishing.add(service);
      void this.finish({ ...step, replica: replica.id }, step.replica).finally(() => this.finishing.delete(service));
    }
  }

  /** Of its own, those whose call has ended without an end of the step: the store was away, or the caller has left. */
  private isLeft({ service, replica }: OpenStep): boolean {
    return replica === this.replica.id ? !this.changes.isUnderWay(service) : this.replica.isGone(replica);
  }

  private async finish(step: OpenStep, from: string): Promise<void> {
    const { service, epoch } = step;
    try {
      const outcome = await this.changes.finish(step);
      this.told.delete(service);
      const whose = from === this.replica.id ? '' : `, left by control plane ${from},`;
      this.log.info({ service, epoch, from, outcome }, `epoch ${epoch} of ${service}${whose} is finished: ${outcome}`);
    } catch (error) {
      const { message } = error as Error;
      if (this.told.get(service) === message) return;
      this.told.set(service, message);
      this.log.warn({ service, epoch, err: error }, `epoch ${epoch} of ${service} cannot be finished yet: ${message}`);
    }
  }
}
