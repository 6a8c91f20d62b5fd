/**
 * Carries a change of a service's split through: committed in the store, published, acknowledged by the proxies of all
 * replicas, and taken back if a proxy refuses it. Every step may be repeated by any replica after the one that began
 * has died: what is done is read from the store.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { OpenStep } from '../blueprints/open-steps';
import {
  StaleEpochError,
  type AppliedChange,
  type CellShare,
  type ProxyRefusal,
  type ServiceRecord,
  type TrafficState,
} from '../blueprints/records';
import { splitViolations } from '../blueprints/splits';
import { commitWithinMs, PatientStore } from './patient-store';
import type { Publisher } from './publisher';
import type { FleetWait } from './replicas/fleet-wait';
import type { Replica } from './replicas/replica';
import { nodesOf, type FleetStanding } from './replicas/standing';
import { RollBack } from './roll-back';
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
  replica: Pick<Replica, 'id' | 'others' | 'problem'>;
  acknowledgeTimeoutMs: number;
  log: Logger;
}

/** Arming and removing read, decide and swap; another change in between means deciding anew, a few times. */
const attempts = 5;

/** A rollback is waited for at least this long, however little of the caller's time is left. */
const rollbackWaitMs = 1000;

export class TrafficChanges {
  private readonly patient: PatientStore;
  private readonly rollBack: RollBack;
  /** How many calls of this process carry a change of the service through. */
  private readonly underWay = new Map<string, number>();

  constructor(private readonly options: TrafficChangesOptions) {
    this.patient = new PatientStore(() => options.replica.problem());
    this.rollBack = new RollBack(options.store, options.log);
  }

  isUnderWay(service: string): boolean {
    return this.underWay.has(service);
  }

  /** The split as it is in the store. */
  async current(service: string): Promise<TrafficState> {
    const state = await this.patient.asked(this.options.store.traffic(service), 'nothing was changed');
    if (!state) throw new UnknownServiceError(`service ${service} is not known; apply its document first`);
    return state;
  }

  /** Commits the split, if the epoch is the expected one, and carries it through. */
  apply(order: ChangeOrder, expectedEpoch: number, split: CellShare[]): Promise<Applied> {
    return this.during(order.service, async () => {
      const made = await this.madeBefore(order);
      if (made) return this.carryThrough(order, made);
      await this.current(order.service);
      return this.carryThrough(order, await this.commit(order, expectedEpoch, split));
    });
  }

  /** Decides on the present state, and anew if somebody was faster. */
  decide(order: ChangeOrder, decision: (state: TrafficState) => CellShare[] | Promise<CellShare[]>): Promise<Applied> {
    return this.during(order.service, () => this.decideAnew(order, decision));
  }

  /** Carries through what a control plane that is gone has left; `outcome` says what became of it. */
  finish({ service, epoch, override }: OpenStep): Promise<Applied['outcome']> {
    return this.during(service, async () => {
      const { store, replica } = this.options;
      const left = `epoch ${epoch} of ${service} is left to be finished`;
      const [made] = await this.patient.asked(store.splitChanges(service, 1, epoch - 1), left);
      // Replaced by a later change, and the step with it.
      if (made?.epoch !== epoch) return 'HELD';
      const lost = (await this.patient.asked(replica.others(service), left)).filter((other) => other.lost);
      const orphans = {
        awaited: lost.flatMap(nodesOf),
        refused: refusalsOfSplit(lost.flatMap((o) => (o.holding?.epoch === epoch ? o.holding.refused : []))),
      };
      const order = { service, override, waitMs: 0 };
      const state = { service, epoch, split: made.split };
      return (await this.carryThrough(order, { state, repeated: true }, { orphans })).outcome;
    });
  }

  private async during<T>(service: string, call: () => Promise<T>): Promise<T> {
    this.underWay.set(service, (this.underWay.get(service) ?? 0) + 1);
    try {
      return await call();
    } finally {
      const left = this.underWay.get(service)! - 1;
      if (left === 0) this.underWay.delete(service);
      else this.underWay.set(service, left);
    }
  }

  private async decideAnew(
    order: ChangeOrder,
    decision: (state: TrafficState) => CellShare[] | Promise<CellShare[]>,
  ): Promise<Applied> {
    const made = await this.madeBefore(order);
    if (made) return this.carryThrough(order, made);
    for (let attempt = 1; ; attempt += 1) {
      const state = await this.current(order.service);
      const split = await decision(state);
      // It is so already, by somebody else's change: told as it stands, and not this caller's to take back.
      if (sameSplit(split, state.split)) return this.carryThrough(order, { state, repeated: true }, { isOwn: false });
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
    const made = await this.patient.asked(
      this.options.store.appliedChange(service, idempotencyKey),
      'nothing was changed by this call',
    );
    if (made) this.tell(made, reason, by);
    return made;
  }

  /** The store first: what is committed there is published sooner or later, whatever happens to this process. */
  private async commit(order: ChangeOrder, expectedEpoch: number, split: CellShare[]): Promise<AppliedChange> {
    const { service, reason, by, idempotencyKey, override, leaseMs } = order;
    const { spec } = await this.publishable(service, split);
    const change = { service, expectedEpoch, split, reason, by, idempotencyKey, override };
    const applied = await this.patient.asked(
      this.options.store.changeTraffic({
        ...change,
        ...(leaseMs !== undefined && { leaseMs }),
        // Written with the change: whoever dies before the proxies have answered, another takes it back.
        ...(takesBack(spec) && { carriedBy: this.options.replica.id }),
      }),
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

  /** The service; refused is what the store would refuse, field by field, and what the proxies would misread. */
  private async publishable(service: string, split: CellShare[]): Promise<ServiceRecord> {
    const { store, publisher } = this.options;
    const [record, cells] = await this.patient.asked(
      Promise.all([this.record(service), store.cells(service)]),
      'nothing was changed',
    );
    const violations = splitViolations(split, cells);
    if (violations.length > 0) throw new BadRequestError(violations);
    const traffic = { service, epoch: 0, split };
    const { problem } = publisher.build({ service: record, cells, traffic, blueprints: [] });
    if (problem) throw new BadRequestError([{ field: 'split', problem: `service ${service}: ${problem}` }]);
    return record;
  }

  private async record(service: string): Promise<ServiceRecord> {
    const record = (await this.options.store.services()).find(({ name }) => name === service);
    if (!record) throw new UnknownServiceError(`service ${service} is not known; apply its document first`);
    return record;
  }

  private async carryThrough(
    order: Pick<ChangeOrder, 'service' | 'override' | 'waitMs'>,
    applied: AppliedChange,
    { isOwn = true, orphans = noOrphans }: { isOwn?: boolean; orphans?: Orphans } = {},
  ): Promise<Applied> {
    const { service } = order;
    const { publisher, wait, acknowledgeTimeoutMs, log } = this.options;
    const began = performance.now();
    const waitMs = order.waitMs || acknowledgeTimeoutMs;
    if (applied.revertedBy) return this.rolledBack(order, applied.state.epoch, applied.revertedBy, waitMs);
    const { epoch } = applied.state;
    const committed = `epoch ${epoch} of ${service} is committed and will be published`;
    await this.patient.asked(publisher.refresh(service), committed);
    const problem = publisher.problem(service);
    if (problem) throw new PreconditionError(`service ${service} is committed but cannot be published: ${problem}`);
    const { spec } = await this.patient.asked(this.record(service), committed);
    const enough = (standing: FleetStanding): boolean =>
      orphans.awaited.length === 0 && acknowledgedShare(standing) >= spec.steps.acknowledgedShare;
    const isOver = (standing: FleetStanding): boolean =>
      isOwn && takesBack(spec) && [...orphans.refused, ...refusalsOfSplit(standing.refused)].length > 0;
    const answer = await this.patient.asked(
      wait.answers(service, epoch, waitMs, (standing) => enough(standing) || isOver(standing), orphans.awaited),
      committed,
      waitMs + commitWithinMs,
    );
    const { acknowledged, refused, pending, gone, moved, tookMs } = answer;
    log.info(
      { service, epoch, acked: acknowledged.length, refused: refused.length, pending, gone, moved, tookMs },
      `epoch ${epoch} of ${service}: ${acknowledged.length} proxies took it in ${tookMs.toFixed(1)} ms, ${refused.length} refused, ${pending.length} pending, ${gone.length} gone`,
    );
    if (isOver(answer)) {
      const seen = refusalsOfSplit(refused);
      const before = orphans.refused.filter(({ node }) => !seen.some((now) => now.node === node));
      const back = await this.rollBack.takeBack({ ...order, epoch, refused: [...seen, ...before] });
      const leftMs = waitMs - (performance.now() - began);
      if (back.kind === 'done') return this.rolledBack(order, epoch, back.by, Math.max(rollbackWaitMs, leftMs));
      if (back.kind === 'failed') {
        throw new StoreUnavailableError(
          `epoch ${epoch} of ${service} is refused and could not be taken back yet; that is done once the Configuration Data Store answers`,
        );
      }
      this.endStep(service, epoch);
    } else if (isOwn) {
      this.endStep(service, epoch);
    }
    const isWhole = pending.length === 0 || acknowledgedShare(answer) >= spec.steps.acknowledgedShare;
    const outcome = refused.length > 0 ? 'HELD' : isWhole ? 'COMPLETE' : 'PARTIAL';
    return { ...answer, state: applied.state, outcome, rolledBackEpoch: 0 };
  }

  /** Nobody has to wait for it: should this fail, it is found open and ended later. */
  private endStep(service: string, epoch: number): void {
    const { store, replica, log } = this.options;
    store.steps
      ?.close(service, epoch, replica.id)
      .catch((error: Error) => log.debug(`the step of epoch ${epoch} of ${service} stays open: ${error.message}`));
  }

  private async rolledBack(
    { service }: Pick<ChangeOrder, 'service'>,
    rolledBackEpoch: number,
    { state, refused }: NonNullable<AppliedChange['revertedBy']>,
    waitMs: number,
  ): Promise<Applied> {
    const { publisher, wait } = this.options;
    const committed = `epoch ${rolledBackEpoch} of ${service} was refused and taken back as epoch ${state.epoch}`;
    await this.patient.asked(publisher.refresh(service), committed);
    const answer = await this.patient.asked(
      wait.answers(service, state.epoch, waitMs, () => false),
      committed,
      waitMs + commitWithinMs,
    );
    const still = answer.refused.filter((r) => !refused.some((first) => first.node === r.node));
    return { ...answer, refused: [...refused, ...still], state, outcome: 'ROLLED_BACK', rolledBackEpoch };
  }
}

/** What control planes that are gone knew of their proxies. */
interface Orphans {
  /** Node ids, waited for until they answer elsewhere. */
  awaited: string[];
  refused: ProxyRefusal[];
}

const noOrphans: Orphans = { awaited: [], refused: [] };

function takesBack({ steps }: ServiceRecord['spec']): boolean {
  return steps.onRefusal === 'roll-back';
}

/** Refusals that a change of the split can have caused. One of something else, from before, is told but changes nothing. */
function refusalsOfSplit(refused: ProxyRefusal[]): ProxyRefusal[] {
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
