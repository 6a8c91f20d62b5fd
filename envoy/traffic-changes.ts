/**
 * Commits changes of a service's split and has them carried through: once for each idempotency key, whichever replica
 * the key comes to, and also where the control plane that began has died since.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { OpenStep } from '../blueprints/open-steps';
import {
  StaleEpochError,
  type AppliedChange,
  type CellShare,
  type RequestHashes,
  type ServiceRecord,
  type TrafficState,
} from '../blueprints/records';
import { splitViolations } from '../blueprints/splits';
import { unhurried } from './caller-patience';
import { CarryThrough, refusalsOfSplit, serviceOf, takesBack, type Applied, type Carried } from './carry-through';
import { PatientStore } from './patient-store';
import type { Publisher } from './publisher';
import type { FleetWait } from './replicas/fleet-wait';
import type { Replica } from './replicas/replica';
import { nodesOf } from './replicas/standing';
import {
  BadRequestError,
  CallerLeftError,
  KeyReusedError,
  PreconditionError,
  UnknownChangeError,
  UnknownServiceError,
} from './traffic-errors';
import type { TrafficStore } from './traffic-store';

export interface ChangeOrder extends Carried {
  reason: string;
  by: string;
  idempotencyKey: string;
  /** What makes this another request than that of an earlier call with the same key. */
  request: RequestHashes;
  leaseMs: number | undefined;
  releaseLease: boolean;
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

export class TrafficChanges {
  private readonly patient: PatientStore;
  private readonly carry: CarryThrough;
  /** How many calls of this process carry a change of the service through. */
  private readonly underWay = new Map<string, number>();

  constructor(private readonly options: TrafficChangesOptions) {
    this.patient = new PatientStore(() => options.replica.problem());
    this.carry = new CarryThrough({ ...options, patient: this.patient });
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
      if (made) return this.carry.run(order, made);
      await this.current(order.service);
      return this.carry.run(order, await this.commit(order, expectedEpoch, split));
    });
  }

  /** Decides on the present state, and anew if somebody was faster. */
  decide(order: ChangeOrder, decision: (state: TrafficState) => CellShare[] | Promise<CellShare[]>): Promise<Applied> {
    return this.during(order.service, () => this.decideAnew(order, decision));
  }

  /** Waits again for what an earlier call made, whatever it asked for. */
  await(order: Omit<Carried, 'override'> & { idempotencyKey: string }): Promise<Applied> {
    const { service, idempotencyKey: key } = order;
    const { store } = this.options;
    const known = 'nothing was changed by this call';
    return this.during(service, async () => {
      const made = await this.patient.asked(store.appliedChange(service, key), known);
      if (!made) throw new UnknownChangeError(`no change of service ${service} was made under the key ${key}`);
      const open = (store.steps && (await this.patient.asked(store.steps.list(), known))) ?? [];
      const step = open.find((each) => each.service === service && each.epoch === made.state.epoch);
      return this.carry.run({ ...order, override: step?.override ?? false }, made);
    });
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
      const order = { service, override, waitMs: 0, patience: unhurried };
      const state = { service, epoch, split: made.split };
      return (await this.carry.run(order, { state, repeated: true }, { orphans })).outcome;
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
    if (made) return this.carry.run(order, made);
    for (let attempt = 1; ; attempt += 1) {
      const state = await this.current(order.service);
      const split = await decision(state);
      // It is so already, by somebody else's change: told as it stands, and not this caller's to take back.
      if (sameSplit(split, state.split)) return this.carry.run(order, { state, repeated: true }, { isOwn: false });
      try {
        return await this.carry.run(order, await this.commit(order, state.epoch, split));
      } catch (error) {
        if (!(error instanceof StaleEpochError) || attempt === attempts) throw error;
        await sleep(5 * attempt);
      }
    }
  }

  /** What an earlier call with the same key made: it may have been made at a replica that has died since. */
  private async madeBefore(order: ChangeOrder): Promise<AppliedChange | undefined> {
    const { service, idempotencyKey, reason, by } = order;
    const made = await this.patient.asked(
      this.options.store.appliedChange(service, idempotencyKey),
      'nothing was changed by this call',
    );
    if (!made) return undefined;
    refuseAnother(order, made);
    this.tell(made, reason, by);
    return made;
  }

  /** The store first: what is committed there is published sooner or later, whatever happens to this process. */
  private async commit(order: ChangeOrder, expectedEpoch: number, split: CellShare[]): Promise<AppliedChange> {
    const { service, request, reason, by, idempotencyKey, override, leaseMs, releaseLease } = order;
    const { spec } = await this.publishable(service, split);
    if (order.patience.hasLeft()) throw new CallerLeftError(`nothing was changed of ${service}: the caller has left`);
    const change = { service, expectedEpoch, split, reason, by, idempotencyKey, request, override, releaseLease };
    const applied = await this.patient.asked(
      this.options.store.changeTraffic({
        ...change,
        ...(leaseMs !== undefined && { leaseMs }),
        // Written with the change: whoever dies before the proxies have answered, another takes it back.
        ...(takesBack(spec) && { carriedBy: this.options.replica.id }),
      }),
      'whether the change was made is not known',
    );
    if (applied.repeated) refuseAnother(order, applied);
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
      Promise.all([serviceOf(store, service), store.cells(service)]),
      'nothing was changed',
    );
    const violations = splitViolations(split, cells);
    if (violations.length > 0) throw new BadRequestError(violations);
    const traffic = { service, epoch: 0, split };
    const { problem } = publisher.build({ service: record, cells, traffic, blueprints: [] });
    if (!problem) return record;
    // Without this change it is no better: the split is not what is wrong.
    const before = publisher.problem(service);
    if (before) throw new PreconditionError(`service ${service} cannot be published, and was not changed: ${before}`);
    throw new BadRequestError([{ field: 'split', problem: `service ${service}: ${problem}` }]);
  }
}

/** A key is for one request: under it another would be answered as if it had been done. */
function refuseAnother({ request, idempotencyKey }: ChangeOrder, made: AppliedChange): void {
  const { request: before } = made;
  // Made before this was kept.
  if (!before) return;
  const fields = [...new Set([...Object.keys(before), ...Object.keys(request)])].filter(
    (field) => before[field] !== request[field],
  );
  if (fields.length > 0) throw new KeyReusedError(idempotencyKey, made.state.epoch, fields);
}

function sameSplit(a: CellShare[], b: CellShare[]): boolean {
  const key = (split: CellShare[]): string =>
    split
      .map((s) => `${s.cell} ${s.shareBp} ${s.coverInstances}`)
      .sort()
      .join();
  return key(a) === key(b);
}
