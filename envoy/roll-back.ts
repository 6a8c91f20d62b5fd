/** Commands the split before a refused one once more, as an epoch of its own; once, whichever replica does it. */
import type { Logger } from 'pino';
import type { AppliedChange, CellShare, ProxyRefusal } from '../blueprints/records';
import { safeSplit } from '../blueprints/splits';
import { within } from './deadline';
import { commitWithinMs } from './patient-store';
import { isForeseen } from './traffic-errors';
import type { TrafficStore } from './traffic-store';

export interface RefusedEpoch {
  service: string;
  epoch: number;
  /** It was a person's decision: it is taken back even while the fleet is stopped. */
  override: boolean;
  refused: ProxyRefusal[];
}

/** `held`: the split is to stay, by the stop or by a later change. `failed`: it could not be done now, and is to be. */
export type TakenBack = { kind: 'done'; by: NonNullable<AppliedChange['revertedBy']> } | { kind: 'held' | 'failed' };

/** What a roll-back is known by, so that no two are made of one epoch. */
export const rollBackKey = (epoch: number): string => `roll-back/${epoch}`;

export class RollBack {
  constructor(
    private readonly store: Pick<TrafficStore, 'changeTraffic' | 'splitChanges' | 'services'>,
    private readonly log: Logger,
  ) {}

  async takeBack({ service, epoch, override, refused }: RefusedEpoch): Promise<TakenBack> {
    const who = refused.map(({ node, resource, reason }) => `${node} refuses ${resource}: ${reason}`).join('; ');
    const reason = `epoch ${epoch} is taken back: ${who}`;
    try {
      const split = await this.splitBefore(service, epoch);
      const change = { service, expectedEpoch: epoch, split, reason, by: 'control-plane', override };
      const { state } = await within(
        this.store.changeTraffic({ ...change, idempotencyKey: rollBackKey(epoch), reverts: { epoch, refused } }),
        commitWithinMs,
        'the rollback was not answered',
      );
      this.log.info({ service, epoch: state.epoch, split, reason }, `service ${service}: ${reason}`);
      return { kind: 'done', by: { state, refused } };
    } catch (error) {
      const isHeld = isForeseen(error);
      this.log[isHeld ? 'warn' : 'error'](
        { service, epoch, refused, err: error },
        `epoch ${epoch} of ${service} is refused (${who}) and held: ${(error as Error).message}`,
      );
      return { kind: isHeld ? 'held' : 'failed' };
    }
  }

  private async splitBefore(service: string, epoch: number): Promise<CellShare[]> {
    const before = (await this.store.splitChanges(service, 1, epoch - 2))[0];
    if (before?.epoch === epoch - 1) return before.split;
    // The first epoch was never changed into: it was declared.
    const declared = (await this.store.services()).find(({ name }) => name === service);
    if (!declared) throw new Error(`service ${service} has gone`);
    return safeSplit(declared.spec);
  }
}
