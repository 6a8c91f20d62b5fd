/**
 * Carries a change of a service's split through: committed in the store, published, acknowledged by the proxies of all
 * replicas, and taken back if a proxy refuses it. Every step may be repeated by any replica after the one that began
 * has died: what is done is read from the store.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import {
  FleetStoppedError,
  RefusedError,
  StaleEpochError,
  type AppliedChange,
  type CellShare,
  type ProxyRefusal,
  type ServiceRecord,
  type TrafficState,
} from '../blueprints/records';
import { safeSplit, splitViolations } from '../blueprints/splits';
import { within } from './deadline';
import type { Publisher } from './publisher';
import type { FleetWait } from './replicas/fleet-wait';
import type { FleetStanding } from './replicas/standing';
import { BadRequestError, PreconditionError, StoreUnavailableError, UnknownServiceError } from './traffic-errors';
import type { TrafficStore } from './traffic-store';

export interface ChangeOrder {
  service: string;
  reason: string;
  by: string;
  idempotencyKey: string;
  /** For the answers of proxies; 0: the configured time. */
  waitMs: number;
  override: boolean;
  leaseMs: number | undefined;
}

export interface Applied extends FleetStanding {
  /** What is in force. */
  state: TrafficState;
  outcome: 'COMPLETE' | 'PARTIAL' | 'HELD' | 'ROLLED_BACK';
  rolledBackEpoch: number;
  tookMs: number;
}

export interface TrafficChangesOptions {
  store: TrafficStore;
  publisher: Publisher;
  wait: Pick<FleetWait, 'answers'>;
  /** Why the store cannot be used now; undefined if it can. */
  storeProblem: () => string | undefined;
  acknowledgeTimeoutMs: number;
  log: Logger;
}

/** Arming and removing read, decide and swap; another change in between means deciding anew, a few times. */
const attempts = 5;

/** A commit that is not answered within this is reported as unknown. */
const commitWithinMs = 5000;

/** A rollback is waited for at least this long, however little of the caller's time is left. */
const rollbackWaitMs = 1000;

export class TrafficChanges {
  constructor(private readonly options: TrafficChangesOptions) {}

  /** The split as it is in the store. */
  async current(service: string): Promise<TrafficState> {
    const state = await this.asked(this.options.store.traffic(service), 'nothing was changed');
    if (!state) throw new UnknownServiceError(`service ${service} is not known; apply its document first`);
    return state;
  }

  /** Commits the split, if the epoch is the expected one, and carries it through. */
  async apply(order: ChangeOrder, expectedEpoch: number, split: CellShare[]): Promise<Applied> {
    const made = await this.madeBefore(order);
    if (made) return this.carryThrough(order, made);
    await this.current(order.service);
    return this.carryThrough(order, await this.commit(order, expectedEpoch, split));
  }

  /** Decides on the present state, and anew if somebody was faster. */
  async decide(
    order: ChangeOrder,
    decision: (state: TrafficState) => CellShare[] | Promise<CellShare[]>,
  ): Promise<Applied> {
    const made = await this.madeBefore(order);
    if (made) return this.carryThrough(order, made);
    for (let attempt = 1; ; attempt += 1) {
      const state = await this.current(order.service);
      const split = await decision(state);
      // It is so already, by somebody else's change: told as it stands, and not this caller's to take back.
      if (sameSplit(split, state.split)) return this.carryThrough(order, { state, repeated: true }, false);
      try {
        return await this.carryThrough(order, await this.commit(order, state.epoch, split));
      } catch (error) {
        if (!(error instanceof StaleEpochError) || attempt === attempts) throw error;
        await sleep(5 * attempt);
      }
    }
  }

  /** What an earlier call with the same key made: it may have been made at a replica that has died since. */
  private async madeBefore({ service, idempotencyKey, reason, by }: ChangeOrder): Promise<AppliedChange | undefined> {
    const made = await this.asked(
      this.options.store.appliedChange(service, idempotencyKey),
      'nothing was changed by this call',
    );
    if (made) this.tell(made, reason, by);
    return made;
  }

  /** The store first: what is committed there is published sooner or later, whatever happens to this process. */
  private async commit(order: ChangeOrder, expectedEpoch: number, split: CellShare[]): Promise<AppliedChange> {
    const { service, reason, by, idempotencyKey, override, leaseMs } = order;
    await this.refuseUnpublishable(service, split);
    const change = { service, expectedEpoch, split, reason, by, idempotencyKey, override };
    const applied = await this.asked(
      this.options.store.changeTraffic({ ...change, ...(leaseMs !== undefined && { leaseMs }) }),
      'whether the change was made is not known',
    );
    this.tell(applied, reason, by);
    return applied;
  }

  private tell({ state, repeated }: AppliedChange, reason: string, by: string): void {
    const { service, epoch, split } = state;
    const words = split.map((s) => `${s.cell} ${s.shareBp}${s.coverInstances ? ` +${s.coverInstances} cover` : ''}`);
    this.options.log.info(
      { service, epoch, split, reason, by, repeated },
      `split of ${service} ${repeated ? 'was already' : 'is now'} ${words.join(', ')} (epoch ${epoch}), by ${by}: ${reason}`,
    );
  }

  /** What the store would refuse, field by field, and what it accepts but the proxies would misread. */
  private async refuseUnpublishable(service: string, split: CellShare[]): Promise<void> {
    const { store, publisher } = this.options;
    const [record, cells] = await this.asked(
      Promise.all([this.record(service), store.cells(service)]),
      'nothing was changed',
    );
    const violations = splitViolations(split, cells);
    if (violations.length > 0) throw new BadRequestError(violations);
    const traffic = { service, epoch: 0, split };
    const { problem } = publisher.build({ service: record, cells, traffic, blueprints: [] });
    if (problem) throw new BadRequestError([{ field: 'split', problem: `service ${service}: ${problem}` }]);
  }

  private async record(service: string): Promise<ServiceRecord> {
    const record = (await this.options.store.services()).find(({ name }) => name === service);
    if (!record) throw new UnknownServiceError(`service ${service} is not known; apply its document first`);
    return record;
  }

  private async carryThrough(order: ChangeOrder, applied: AppliedChange, isOwn = true): Promise<Applied> {
    const { service } = order;
    const { publisher, wait, acknowledgeTimeoutMs, log } = this.options;
    const began = performance.now();
    const waitMs = order.waitMs || acknowledgeTimeoutMs;
    if (applied.revertedBy) return this.rolledBack(order, applied.state.epoch, applied.revertedBy, waitMs);
    const { epoch } = applied.state;
    const committed = `epoch ${epoch} of ${service} is committed and will be published`;
    await this.asked(publisher.refresh(service), committed);
    const problem = publisher.problem(service);
    if (problem) throw new PreconditionError(`service ${service} is committed but cannot be published: ${problem}`);
    const { steps } = (await this.asked(this.record(service), committed)).spec;
    const takesBack = isOwn && steps.onRefusal === 'roll-back';
    const isRefused = (standing: FleetStanding): boolean => refusalsOfSplit(standing).length > 0;
    const answer = await this.asked(
      wait.answers(
        service,
        epoch,
        waitMs,
        (standing) => acknowledgedShare(standing) >= steps.acknowledgedShare || (takesBack && isRefused(standing)),
      ),
      committed,
      waitMs + commitWithinMs,
    );
    const { acknowledged, refused, pending, gone, moved, tookMs } = answer;
    log.info(
      { service, epoch, acked: acknowledged.length, refused: refused.length, pending, gone, moved, tookMs },
      `epoch ${epoch} of ${service}: ${acknowledged.length} proxies took it in ${tookMs.toFixed(1)} ms, ${refused.length} refused, ${pending.length} pending, ${gone.length} gone`,
    );
    if (takesBack && isRefused(answer)) {
      const back = await this.rollBack(order, applied.state, refusalsOfSplit(answer));
      const leftMs = waitMs - (performance.now() - began);
      if (back) return this.rolledBack(order, epoch, back, Math.max(rollbackWaitMs, leftMs));
    }
    const isWhole = pending.length === 0 || acknowledgedShare(answer) >= steps.acknowledgedShare;
    const outcome = refused.length > 0 ? 'HELD' : isWhole ? 'COMPLETE' : 'PARTIAL';
    return { ...answer, state: applied.state, outcome, rolledBackEpoch: 0 };
  }

  /** Commands the split before once more, as an epoch of its own; once, whichever replica does it. Undefined: held. */
  private async rollBack(
    { service, override }: ChangeOrder,
    { epoch }: TrafficState,
    refused: ProxyRefusal[],
  ): Promise<AppliedChange['revertedBy']> {
    const { store, log } = this.options;
    const who = refused.map(({ node, resource, reason }) => `${node} refuses ${resource}: ${reason}`).join('; ');
    const reason = `epoch ${epoch} is taken back: ${who}`;
    const by = 'control-plane';
    try {
      const split = await this.splitBefore(service, epoch);
      const idempotencyKey = `roll-back/${epoch}`;
      const change = { service, expectedEpoch: epoch, split, reason, by, idempotencyKey, override };
      const applied = await within(
        store.changeTraffic({ ...change, reverts: { epoch, refused } }),
        commitWithinMs,
        'the rollback was not answered',
      );
      this.tell(applied, reason, by);
      return { state: applied.state, refused };
    } catch (error) {
      log[isForeseen(error) ? 'warn' : 'error'](
        { service, epoch, refused, err: error },
        `epoch ${epoch} of ${service} is refused (${who}) and held: ${(error as Error).message}`,
      );
      return undefined;
    }
  }

  private async splitBefore(service: string, epoch: number): Promise<CellShare[]> {
    const before = (await this.options.store.splitChanges(service, 1, epoch - 2))[0];
    if (before?.epoch === epoch - 1) return before.split;
    // The first epoch was never changed into: it was declared.
    return safeSplit((await this.record(service)).spec);
  }

  private async rolledBack(
    { service }: ChangeOrder,
    rolledBackEpoch: number,
    { state, refused }: NonNullable<AppliedChange['revertedBy']>,
    waitMs: number,
  ): Promise<Applied> {
    const { publisher, wait } = this.options;
    const committed = `epoch ${rolledBackEpoch} of ${service} was refused and taken back as epoch ${state.epoch}`;
    await this.asked(publisher.refresh(service), committed);
    const answer = await this.asked(
      wait.answers(service, state.epoch, waitMs, () => false),
      committed,
      waitMs + commitWithinMs,
    );
    const still = answer.refused.filter((r) => !refused.some((first) => first.node === r.node));
    return { ...answer, refused: [...refused, ...still], state, outcome: 'ROLLED_BACK', rolledBackEpoch };
  }

  /** Waits for the store, but not for ever, and says what is known when it does not answer. */
  private async asked<T>(answer: Promise<T>, known: string, withinMs = commitWithinMs): Promise<T> {
    const problem = this.options.storeProblem();
    if (problem) {
      answer.catch(() => undefined);
      throw new StoreUnavailableError(`${problem}; ${known}; try again with the same idempotency key`);
    }
    try {
      return await within(answer, withinMs, 'the Configuration Data Store does not answer');
    } catch (error) {
      if (isForeseen(error)) throw error;
      throw new StoreUnavailableError(
        `${(error as Error).message}; ${known}; try again with the same idempotency key`,
        {
          cause: error,
        },
      );
    }
  }
}

function isForeseen(error: unknown): boolean {
  return error instanceof RefusedError || error instanceof StaleEpochError || error instanceof FleetStoppedError;
}

/** Refusals that a change of the split can have caused. One of something else, from before, is told but changes nothing. */
function refusalsOfSplit({ refused }: FleetStanding): ProxyRefusal[] {
  return refused.filter(({ resource }) => /^(endpoints|route) /.test(resource));
}

function acknowledgedShare({ acknowledged, refused, pending }: FleetStanding): number {
  const all = acknowledged.length + pending.length + new Set(refused.map(({ node }) => node)).size;
  return all === 0 ? 1 : acknowledged.length / all;
}

function sameSplit(a: CellShare[], b: CellShare[]): boolean {
  const key = (split: CellShare[]): string =>
    split
      .map((s) => `${s.cell} ${s.shareBp} ${s.coverInstances}`)
      .sort()
      .join();
  return key(a) === key(b);
}
