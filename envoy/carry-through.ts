/**
 * Carries a committed change through: published, acknowledged by the proxies of all replicas, and taken back if one
 * refuses it. Every step may be repeated, by any replica: what is done is read from the store.
 */
import type { Logger } from 'pino';
import type { AppliedChange, ProxyRefusal, ServiceRecord, SplitLease, TrafficState } from '../blueprints/records';
import { waitWithin, type Patience } from './caller-patience';
import { commitWithinMs, type PatientStore } from './patient-store';
import type { Publisher } from './publisher';
import type { FleetAnswer, FleetWait } from './replicas/fleet-wait';
import type { Replica } from './replicas/replica';
import type { FleetStanding } from './replicas/standing';
import { RollBack } from './roll-back';
import { StoreUnavailableError, UnknownServiceError, UnpublishedError } from './traffic-errors';
import type { TrafficStore } from './traffic-store';

export interface Applied extends FleetStanding {
  /** What is in force. */
  state: TrafficState;
  outcome: 'COMPLETE' | 'PARTIAL' | 'HELD' | 'ROLLED_BACK';
  rolledBackEpoch: number;
  tookMs: number;
  /** What lies on the split. */
  lease: SplitLease | undefined;
}

export interface CarryThroughOptions {
  store: TrafficStore;
  patient: PatientStore;
  publisher: Publisher;
  wait: Pick<FleetWait, 'answers'>;
  replica: Pick<Replica, 'id'>;
  acknowledgeTimeoutMs: number;
  log: Logger;
}

/** What carrying a change through needs of its order. */
export interface Carried {
  service: string;
  /** For the answers of proxies; 0: the configured time. */
  waitMs: number;
  override: boolean;
  /** The caller's. */
  patience: Patience;
}

/** What control planes that are gone knew of their proxies. */
export interface Orphans {
  /** Node ids, waited for until they answer elsewhere. */
  awaited: string[];
  refused: ProxyRefusal[];
}

const noOrphans: Orphans = { awaited: [], refused: [] };

/** A rollback is waited for at least this long, however little of the caller's time is left. */
const rollbackWaitMs = 1000;

export class CarryThrough {
  private readonly rollBack: RollBack;

  constructor(private readonly options: CarryThroughOptions) {
    this.rollBack = new RollBack(options.store, options.log);
  }

  /** @param isOwn whether the change was made for this order, so that a refusal takes it back. */
  async run(
    order: Carried,
    { state, lease, revertedBy }: AppliedChange,
    { isOwn = true, orphans = noOrphans }: { isOwn?: boolean; orphans?: Orphans } = {},
  ): Promise<Applied> {
    const { service, patience } = order;
    const { epoch } = state;
    const { patient, publisher, acknowledgeTimeoutMs } = this.options;
    const began = performance.now();
    const wantedMs = order.waitMs || acknowledgeTimeoutMs;
    const waitMs = waitWithin(patience, wantedMs);
    if (revertedBy) return this.rolledBack(order, epoch, { ...revertedBy, lease }, waitMs);
    const committed = `epoch ${epoch} of ${service} is committed and will be published`;
    await patient.asked(publisher.refresh(service), committed);
    const problem = publisher.problem(service);
    if (problem) {
      throw new UnpublishedError(
        `epoch ${epoch} of ${service} is committed, and the proxies stay as they were; it is published once this is mended: ${problem}; then try again with the same idempotency key`,
      );
    }
    const { spec } = await patient.asked(serviceOf(this.options.store, service), committed);
    const isEnough = (standing: FleetStanding): boolean =>
      acknowledgedShare(standing) >= spec.steps.acknowledgedShare && orphans.awaited.length === 0;
    const refusals = ({ refused }: FleetStanding): ProxyRefusal[] => {
      const seen = refusalsOfSplit(refused);
      return [...seen, ...orphans.refused.filter(({ node }) => !seen.some((now) => now.node === node))];
    };
    const isToGoBack = (standing: FleetStanding): boolean => isOwn && takesBack(spec) && refusals(standing).length > 0;
    const answer = await this.answers(order, epoch, waitMs, committed, {
      enough: (standing) => isEnough(standing) || isToGoBack(standing),
      awaited: orphans.awaited,
    });
    const { refused, pending } = answer;
    this.tell(service, epoch, answer);
    const isWhole = pending.length === 0 || acknowledgedShare(answer) >= spec.steps.acknowledgedShare;
    if (isToGoBack(answer)) {
      const back = await this.rollBack.takeBack({ ...order, epoch, refused: refusals(answer) });
      if (back.kind === 'failed') {
        throw new StoreUnavailableError(
          `epoch ${epoch} of ${service} is refused and could not be taken back yet; that is done once the Configuration Data Store answers`,
        );
      }
      if (back.kind === 'done') {
        const leftMs = waitMs - (performance.now() - began);
        const restMs = waitWithin(patience, Math.max(rollbackWaitMs, leftMs));
        return this.rolledBack(order, epoch, { ...back.by, lease }, restMs);
      }
      this.endStep(service, epoch);
    } else if (isOwn && (isWhole || !(waitMs < wantedMs || patience.hasLeft()))) {
      // Left open for a caller in a hurry: who answers after that can still refuse, and have it taken back.
      this.endStep(service, epoch);
    }
    const outcome = refused.length > 0 ? 'HELD' : isWhole ? 'COMPLETE' : 'PARTIAL';
    return { ...answer, state, outcome, rolledBackEpoch: 0, lease };
  }

  private answers(
    { service, patience: { hasLeft } }: Carried,
    epoch: number,
    waitMs: number,
    known: string,
    { enough, awaited = [] }: { enough: (standing: FleetStanding) => boolean; awaited?: string[] },
  ): Promise<FleetAnswer> {
    const { patient, wait } = this.options;
    const answer = wait.answers(service, epoch, waitMs, enough, { awaited, hasLeft });
    return patient.asked(answer, known, waitMs + commitWithinMs);
  }

  private async rolledBack(
    order: Carried,
    rolledBackEpoch: number,
    { state, refused, lease }: NonNullable<AppliedChange['revertedBy']> & Pick<Applied, 'lease'>,
    waitMs: number,
  ): Promise<Applied> {
    const { service } = order;
    const { patient, publisher } = this.options;
    const known = `epoch ${rolledBackEpoch} of ${service} was refused and taken back as epoch ${state.epoch}`;
    await patient.asked(publisher.refresh(service), known);
    const answer = await this.answers(order, state.epoch, waitMs, known, { enough: () => false });
    const still = answer.refused.filter((r) => !refused.some((first) => first.node === r.node));
    return { ...answer, refused: [...refused, ...still], state, outcome: 'ROLLED_BACK', rolledBackEpoch, lease };
  }

  /** Nobody has to wait for it: should this fail, it is found open and ended later. */
  private endStep(service: string, epoch: number): void {
    const { store, replica, log } = this.options;
    store.steps
      ?.close(service, epoch, replica.id)
      .catch((error: Error) => log.debug(`the step of epoch ${epoch} of ${service} stays open: ${error.message}`));
  }

  private tell(service: string, epoch: number, answer: FleetAnswer): void {
    const { acknowledged, refused, pending, gone, moved, tookMs } = answer;
    this.options.log.info(
      { service, epoch, acked: acknowledged.length, refused: refused.length, pending, gone, moved, tookMs },
      `epoch ${epoch} of ${service}: ${acknowledged.length} proxies took it in ${tookMs.toFixed(1)} ms, ${refused.length} refused, ${pending.length} pending, ${gone.length} gone`,
    );
  }
}

export async function serviceOf(store: Pick<TrafficStore, 'services'>, service: string): Promise<ServiceRecord> {
  const record = (await store.services()).find(({ name }) => name === service);
  if (!record) throw new UnknownServiceError(`service ${service} is not known; apply its document first`);
  return record;
}

export function takesBack({ steps }: ServiceRecord['spec']): boolean {
  return steps.onRefusal === 'roll-back';
}

/** Refusals that a change of the split can have caused. One of something else, from before, is told but changes nothing. */
export function refusalsOfSplit(refused: ProxyRefusal[]): ProxyRefusal[] {
  return refused.filter(({ resource }) => /^(endpoints|route) /.test(resource));
}

function acknowledgedShare({ acknowledged, refused, pending }: FleetStanding): number {
  const all = acknowledged.length + pending.length + new Set(refused.map(({ node }) => node)).size;
  return all === 0 ? 1 : acknowledged.length / all;
}
