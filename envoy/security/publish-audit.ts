/** Writes down each publication: which split replaced which, and which proxies took it, refused it or did not answer. */
import type { AuditRecord, PublishOutcome } from '../../blueprints/audit';
import type { CellShare, TrafficState } from '../../blueprints/records';
import { serviceOf, type ResourceKey } from '../resources/resource';
import type { Acknowledgements } from '../xds/server';
import type { XdsObserver } from '../xds/observer';

export interface PublishAuditOptions {
  /** The split that is being published, by service. */
  splitOf: (service: string) => TrafficState | undefined;
  acknowledgements: (keys: ResourceKey[], waitMs: number) => Promise<Acknowledgements>;
  /** How long proxies may take to answer before the record says that they did not. */
  waitMs: number;
  /** Names this control plane among its replicas. */
  replica: string;
  record: (record: AuditRecord) => void;
}

/** More publications than this under way at once are written down without what became of them. */
const followedAtMost = 16;

export class PublishAudit implements XdsObserver {
  private readonly last = new Map<string, CellShare[]>();
  private followed = 0;

  constructor(private readonly options: PublishAuditOptions) {}

  published(changed: readonly ResourceKey[]): void {
    const { splitOf, acknowledgements, waitMs } = this.options;
    // Secrets belong to proxies, not to a service.
    const byService = new Map<string | null, ResourceKey[]>();
    for (const key of changed) {
      const service = key.type === 'secret' ? null : serviceOf(key.name);
      byService.set(service, [...(byService.get(service) ?? []), key]);
    }
    const records = [...byService].map(([service, keys]) => {
      const traffic = service === null ? undefined : splitOf(service);
      const from = service === null ? undefined : this.last.get(service);
      if (service !== null && traffic) this.last.set(service, traffic.split);
      else if (service !== null) this.last.delete(service);
      return { service, keys, epoch: traffic?.epoch, from, to: traffic?.split };
    });
    const write = (outcome: Acknowledgements | undefined): void => {
      for (const { service, keys, epoch, from, to } of records) this.write(service, keys, { epoch, from, to }, outcome);
    };
    if (this.followed >= followedAtMost) return write(undefined);
    this.followed += 1;
    // After this turn, when what was published is also what the streams are judged by.
    setImmediate(() => {
      acknowledgements([...changed], waitMs)
        .then(write, () => write(undefined))
        .finally(() => (this.followed -= 1));
    });
  }

  private write(
    service: string | null,
    keys: ResourceKey[],
    split: { epoch: number | undefined; from: CellShare[] | undefined; to: CellShare[] | undefined },
    outcome: Acknowledgements | undefined,
  ): void {
    const { record, replica } = this.options;
    const isOurs = (type: string, name: string): boolean => keys.some((key) => key.type === type && key.name === name);
    const proxies: PublishOutcome | undefined = outcome && {
      acknowledged: outcome.acked,
      refused: outcome.nacked
        .filter(({ type, resource }) => isOurs(type, resource))
        .map(({ node, type, resource, error }) => ({ node, resource: `${type} ${resource}`, reason: error })),
      pending: outcome.pending,
      gone: outcome.gone,
      tookMs: Math.round(outcome.tookMs * 10) / 10,
    };
    record({
      kind: 'publish',
      service,
      epoch: split.epoch ?? null,
      from: split.from ?? null,
      to: split.to ?? null,
      outcome: !proxies
        ? 'not followed'
        : proxies.refused.length > 0
          ? 'refused'
          : proxies.pending.length + proxies.gone.length > 0
            ? 'incomplete'
            : 'acknowledged',
      details: { replica, resources: keys.map(({ type, name }) => `${type} ${name}`), ...proxies },
    });
  }
}
