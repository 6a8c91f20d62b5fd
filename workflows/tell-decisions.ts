/** Tells what a failover decided, in order and beside its flow: nothing that is to be done waits for it, only the end does. */
import { CancellationScope, condition, proxyActivities } from '@temporalio/workflow';
import { considerationsBetween, decisionsBetween, inOrder, type Decision } from './decisions';
import type { Failover } from './failover';

export interface DecisionActivities {
  /** Keeps decisions for publication. Told again, one is kept once: its id is its key. */
  recordDecisions(decisions: Decision[]): Promise<void>;
}

const options = {
  startToCloseTimeout: '20s',
  // A store that is away for longer costs these events; the dossier has them all the same.
  scheduleToCloseTimeout: '1 hour',
  heartbeatTimeout: '4s',
  retry: { initialInterval: '200ms', backoffCoefficient: 2, maximumInterval: '5s' },
} as const;
const { recordDecisions } = proxyActivities<DecisionActivities>(options);

export class DecisionTeller {
  private last: Promise<void> = Promise.resolve();
  private pending = 0;

  /**
   * @param told what has been told already: null at the very beginning of a failover
   * @param tellsConsiderations false in histories from before plans, guards and pages were told
   */
  constructor(
    private told: Failover | null,
    private readonly tellsConsiderations: boolean,
  ) {}

  tell(f: Failover): void {
    const considered = this.tellsConsiderations ? considerationsBetween(this.told, f) : [];
    const decisions = inOrder([...decisionsBetween(this.told, f), ...considered]);
    this.told = f;
    if (decisions.length === 0) return;
    this.pending += 1;
    const summary = decisions.map(({ what }) => what).join('; ');
    const record = () =>
      recordDecisions.executeWithOptions({ ...options, summary: summary.slice(0, 180) }, [decisions]);
    this.last = this.last
      .then(() => CancellationScope.nonCancellable(record))
      .catch(() => undefined)
      .finally(() => (this.pending -= 1));
  }

  /** Resolves when nothing is on its way any more. */
  async settled(): Promise<void> {
    await condition(() => this.pending === 0);
  }
}
