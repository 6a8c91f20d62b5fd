/**
 * The failure detector: looks at the cells that the prediction may have missed. A death that it sees starts a failover, or
 * hurries one that is under way. It decides nothing: what may be done about a death is the failover's affair.
 */
import { CancelledFailure } from '@temporalio/activity';
import type { Logger } from 'pino';
import type { CellRecord, ServiceRecord } from '../blueprints/records';
import type { Reached } from '../cells/http';
import type { TrafficClient } from '../envoy/traffic-client';
import type { RiskEvent } from '../prediction/contracts';
import type { DetectionActivities } from '../workflows/failure-detection';
import { Answered, answersHealthCheck, failuresThatCount, SourceHealth, within } from './instance-health';
import { untilRotation } from './long-activity';
import { shareOf, totalsOf } from './measures';
import type { SyntheticCells } from './ports';

export interface DetectionPorts {
  store: { services(): Promise<ServiceRecord[]>; cells(): Promise<CellRecord[]> };
  traffic: Pick<TrafficClient, 'getTraffic'>;
  cells: Pick<SyntheticCells, 'reached'>;
  /** Resolves once the failover has durably heard it; a failover that does not run yet is started. */
  notifier: { notify(event: RiskEvent): Promise<void> };
  log: Pick<Logger, 'info' | 'warn'>;
}

const detectorModel = 'failure-detector';

const cellsReadEveryMs = 2000;
const trafficTimeoutMs = 1500;
/** A death is told again for as long as it lasts and the cell has a share: a word that nobody repeats goes stale. */
const tellEveryMs = 2000;
const fastestEveryMs = 250;

export function failureDetecting(ports: DetectionPorts): DetectionActivities {
  return {
    async detectFailures(): Promise<void> {
      const detector = new FailureDetector(ports);
      try {
        await untilRotation({ progress: () => ({ turns: detector.turns }), work: detector.run() });
      } catch (error) {
        // Rethrown also at a worker's shutdown: a normal return would complete the activity instead of moving it.
        throw error instanceof CancelledFailure ? error : new CancelledFailure(String(error));
      } finally {
        detector.stop();
      }
    },
  };
}

/** What is looked at of a cell. */
interface Target {
  cell: CellRecord;
  /** Its instances, and how they are spoken to. */
  instances: Reached[];
  service: ServiceRecord;
}

/** Reads which cells there are, again and again, and has each looked at in its service's own rhythm. */
export class FailureDetector {
  /** Grows while it lives. */
  turns = 0;
  private readonly watches = new Map<string, CellWatch>();
  private reading: Promise<void> | undefined;
  private stopped = false;
  private wake: () => void = () => undefined;

  constructor(private readonly ports: DetectionPorts) {}

  async run(): Promise<void> {
    while (!this.stopped) {
      await this.readTargets();
      this.turns += 1;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, cellsReadEveryMs);
        this.wake = () => (clearTimeout(timer), resolve());
      });
    }
  }

  stop(): void {
    this.stopped = true;
    this.take([]);
    this.wake();
  }

  /** What was known stays true until the store can be read again: a store that hangs must not blind the detector. */
  private async readTargets(): Promise<void> {
    this.reading ??= this.targets()
      .then((targets) => this.take(targets))
      .catch((error: Error) => this.ports.log.warn(`the cells to look at could not be read: ${error.message}`))
      .finally(() => (this.reading = undefined));
    const isRead = this.reading.then(() => true);
    if ((await within(cellsReadEveryMs, isRead)) === null)
      this.ports.log.warn(`the cells to look at could not be read within ${cellsReadEveryMs} ms`);
  }

  private async targets(): Promise<Target[]> {
    const [services, cells] = await Promise.all([this.ports.store.services(), this.ports.store.cells()]);
    const protectedOnes = new Map(services.filter(isProtected).map((service) => [service.name, service]));
    const targets = cells.map(async (cell): Promise<Target[]> => {
      const service = protectedOnes.get(cell.service);
      if (!service || cell.role === 'synthetic' || cell.instances.length === 0) return [];
      const instances = service.spec.tls ? await this.ports.cells.reached?.(cell) : undefined;
      return [{ cell, service, instances: instances ?? cell.instances }];
    });
    return (await Promise.all(targets)).flat();
  }

  private take(targets: readonly Target[]): void {
    const wanted = new Map(this.stopped ? [] : targets.map((target) => [target.cell.name, target]));
    for (const [name, watch] of this.watches) {
      if (wanted.has(name)) continue;
      watch.stop();
      this.watches.delete(name);
    }
    for (const [name, target] of wanted) {
      const known = this.watches.get(name);
      if (known) known.target = target;
      else this.watches.set(name, new CellWatch(target, this.ports));
    }
  }
}

function isProtected({ spec: { policy } }: ServiceRecord): boolean {
  return policy.autonomy !== 'observe';
}

class CellWatch {
  private readonly health = new SourceHealth('alive');
  private answered = new Answered();
  /** Load reports read since the last sign of life: one alone says nothing about what comes. */
  private reports = 0;
  /** What has never been seen to work cannot die: a cell that is still being started is nobody's failure. */
  private hasLived = false;
  private episodeId: string | null = null;
  private toldMs = 0;
  private timer: NodeJS.Timeout | undefined;
  private stopped = false;

  constructor(
    public target: Target,
    private readonly ports: DetectionPorts,
  ) {
    this.next();
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
  }

  private next(): void {
    if (this.stopped) return;
    const everyMs = Math.max(fastestEveryMs, this.target.service.spec.healthCheck.intervalMs / 2);
    this.timer = setTimeout(() => {
      void this.look()
        .catch((error: Error) => this.ports.log.warn(`${this.target.cell.name}: ${error.message}; it is tried again`))
        .finally(() => this.next());
    }, everyMs);
  }

  private async look(): Promise<void> {
    const { cell, service, instances } = this.target;
    const healthy = await Promise.all(instances.map((instance) => answersHealthCheck(instance, service.spec)));
    if (this.stopped) return;
    this.health.round(instances, healthy);
    if (healthy.some(Boolean)) {
      this.hasLived = true;
      this.answered = new Answered();
      this.reports = 0;
      if (this.episodeId !== null && this.health.state() === 'alive') await this.tellRecovered();
      return;
    }
    const view = await within(trafficTimeoutMs, this.ports.traffic.getTraffic(service.name));
    // Without a word from the load balancer this may be trouble of our own: nothing is claimed.
    if (!view || this.stopped) return;
    this.reports += 1;
    const totals = totalsOf(view, cell.name);
    this.hasLived ||= totals.requests > totals.errors;
    this.answered.note(totals, Date.now());
    const isDead = this.hasLived && this.health.state() === 'dead' && this.reports >= failuresThatCount;
    if (!isDead || this.answered.contradicts('dead', Date.now()) || shareOf(view, cell.name) === 0) return;
    if (Date.now() - this.toldMs >= tellEveryMs) await this.tellDead();
  }

  private async tellDead(): Promise<void> {
    const { cell } = this.target;
    const nowMs = Date.now();
    if (this.episodeId === null) {
      this.episodeId = `${cell.name}@${new Date(nowMs).toISOString()}/seen`;
      this.ports.log.info({ cell: cell.name }, `${cell.name} is dead, and carries a share`);
    }
    const count = cell.instances.length;
    const none = count === 1 ? 'its instance has not' : `none of its ${count} instances has`;
    const why = `${none} answered ${failuresThatCount} health checks in a row, nor do callers get answers from it`;
    await this.ports.notifier.notify(this.event(nowMs, this.episodeId, { state: 'dead', why }));
    this.toldMs = nowMs;
  }

  private async tellRecovered(): Promise<void> {
    const why = 'all of its instances answer their health checks again';
    await this.ports.notifier.notify(this.event(Date.now(), this.episodeId!, { state: 'alive', why }));
    this.episodeId = null;
    this.toldMs = 0;
  }

  private event(nowMs: number, episodeId: string, observed: NonNullable<RiskEvent['observed']>): RiskEvent {
    const { cell, service } = this.target;
    const isDead = observed.state === 'dead';
    return {
      eventId: `${episodeId}#${nowMs}`,
      episodeId,
      service: service.name,
      cell: cell.name,
      at: new Date(nowMs).toISOString(),
      level: isDead ? 'shift' : 'clear',
      probability: isDead ? 1 : 0,
      horizonS: service.spec.policy.horizonS,
      health: isDead ? 0 : 'unknown',
      timeToFailureS: isDead ? { p10: 0, p50: 0, p90: 0 } : { p10: null, p50: null, p90: null },
      trust: 1,
      drivers: [],
      model: detectorModel,
      observed,
    };
  }
}
