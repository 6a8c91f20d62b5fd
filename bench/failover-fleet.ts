/** A fleet for failovers to happen in, for benchmarks: real servers and workers, cells that answer, callers, and risks that are told. */
import { randomUUID } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { Agent, createServer, get, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as pause } from 'node:timers/promises';
import { Client, Connection, WorkflowUpdateFailedError, type WorkflowHandle } from '@temporalio/client';
import {
  blueprintSchema,
  cellSchema,
  serviceSchema,
  type BlueprintDocument,
  type CellDocument,
  type ServiceDocument,
} from '../blueprints/schema';
import { ConfigurationStore } from '../blueprints/store';
import { TrafficClient } from '../envoy/traffic-client';
import { ownProcess } from '../local/own-processes';
import { releasePorts, reservePorts } from '../local/ports';
import type { ManagedProcess } from '../local/process';
import { startStack, type Stack } from '../local/stack';
import { waitUntil } from '../local/wait';
import type { RiskEvent, RiskLevel } from '../prediction/contracts';
import { TemporalNotifier } from '../prediction/temporal-notifier';
import { failoverWorkflowId, type Dossier, type FailoverResult, type Override } from '../workflows/messages';

export interface FleetService {
  name: string;
  cells: number;
  /** Of its callers, all together. */
  requestsPerSecond: number;
  policy: Record<string, unknown>;
}

/** Lets many failovers happen that a real fleet's guards would rightly stop. */
export const unguarded = {
  autonomy: 'act',
  maxConcurrentFailovers: 1000,
  breaker: { cells: 1000 },
  budget: { failoversPerDay: 10_000, standbyCellHoursPerDay: 10_000, concurrentInFleet: 1000 },
  flapping: { tolerated: 10_000 },
  portability: 'ignore',
} as const;

const tellEveryMs = 2000;
/** A cell's capacity as a multiple of its usual load. */
const roomForTimes = 2;
/** Of a split change that every proxy has acknowledged. */
interface Seen {
  service: string;
  epoch: number;
  by: string;
  split: Record<string, number>;
  atMs: number;
}

export class FailoverFleet {
  readonly changes: Seen[] = [];
  private readonly servers = new Map<string, Server>();
  private readonly risks = new Map<string, { service: string; cell: string; level: RiskLevel; episode: string }>();
  private readonly ending = new AbortController();
  private readonly underWay: Promise<unknown>[] = [];
  private readonly agent = new Agent({ keepAlive: true, maxSockets: 64 });
  /** Of callers: what they were answered. */
  readonly answered = { good: 0, bad: 0 };

  private constructor(
    readonly stack: Stack,
    readonly store: ConfigurationStore,
    readonly traffic: TrafficClient,
    private readonly connection: Connection,
    readonly client: Client,
    private readonly notifier: TemporalNotifier,
    readonly workers: ManagedProcess[],
    private readonly ports: number[],
  ) {
    // Each service's watcher listens for the end.
    setMaxListeners(0, this.ending.signal);
  }

  static async start(services: readonly FleetService[]): Promise<FailoverFleet> {
    const ports = await reservePorts(services.length);
    const stack = await startStack({
      parts: ['temporal', 'postgres', 'control-plane', 'failover-worker', 'envoy'],
      settings: { reconciliation: { everyS: 3600 } },
    });
    const spec = ownProcess('failover-worker', stack.dir, stack.settingsFile);
    const second = await stack.startAlso({
      ...spec,
      name: 'failover-worker-2',
      logFile: `${stack.dir}/failover-worker-2.log`,
    });
    const { address, namespace } = stack.settings.temporal;
    const connection = await Connection.connect({ address });
    const client = new Client({ connection, namespace });
    const fleet = new FailoverFleet(
      stack,
      await ConfigurationStore.connect(stack.settings.postgres.url),
      new TrafficClient(stack.addresses.trafficApi),
      connection,
      client,
      new TemporalNotifier(client, stack.settings.temporal.failoverTaskQueue),
      [stack.process('failover-worker'), second],
      ports,
    );
    await fleet.apply(services);
    for (const [i, service] of services.entries()) await fleet.open(service, ports[i]!);
    for (const { name } of services) await fleet.untilMeasured(name);
    fleet.underWay.push(fleet.telling());
    return fleet;
  }

  async stop(): Promise<void> {
    this.ending.abort();
    await Promise.allSettled(this.underWay);
    for (const server of this.servers.values()) closeNow(server);
    this.agent.destroy();
    this.traffic.close();
    await this.connection.close();
    await this.store.close();
    await this.stack.stop();
    releasePorts(this.ports);
  }

  cellsOf({ name, cells }: FleetService): string[] {
    return Array.from({ length: cells }, (_, i) => `${name}-${String.fromCharCode(97 + i)}`);
  }

  /** From now on, and until it is told otherwise, the scoring worker's word on the cell, repeated as it does. */
  async tell(service: string, cell: string, level: RiskLevel): Promise<void> {
    const key = `${service}/${cell}`;
    const known = this.risks.get(key);
    const risk = { service, cell, level, episode: known?.episode ?? randomUUID() };
    if (level === 'clear') this.risks.delete(key);
    else this.risks.set(key, risk);
    await this.say(risk);
  }

  /** Nothing is told of the cell any more. */
  silence(service: string, cell: string): void {
    this.risks.delete(`${service}/${cell}`);
  }

  handle(service: string, cell: string): WorkflowHandle {
    return this.client.workflow.getHandle(failoverWorkflowId(service, cell));
  }

  async order(service: string, cell: string, order: Omit<Override, 'by' | 'reason'>): Promise<void> {
    const args: [Override] = [{ by: 'bench', reason: 'benchmark', ...order }];
    await this.handle(service, cell)
      .executeUpdate('override', { args })
      .catch((err: unknown) => {
        if (!(err instanceof WorkflowUpdateFailedError)) throw err;
        throw new Error(`${order.action} of ${service}/${cell} was refused: ${err.cause?.message}`, { cause: err });
      });
  }

  async result(service: string, cell: string): Promise<FailoverResult> {
    return (await this.handle(service, cell).result()) as FailoverResult;
  }

  async untilArmed(service: string, cell: string): Promise<void> {
    await waitUntil(
      async () =>
        (await this.store.cells(service)).some(
          (c) => c.owner === failoverWorkflowId(service, cell) && c.state === 'armed',
        ),
      { withinMs: 120_000, what: `the synthetic cell of ${cell} is armed` },
    );
  }

  /** When the proxies have acknowledged the first change by this failover since, that `is` accepts. */
  async changeSince(sinceMs: number, service: string, cell: string, is: (c: Seen) => boolean): Promise<Seen> {
    const by = failoverWorkflowId(service, cell);
    return waitUntil(
      () => this.changes.find((c) => c.service === service && c.by === by && c.atMs >= sinceMs && is(c)),
      { withinMs: 180_000, everyMs: 5, what: `the split of ${service} is changed for ${cell}` },
    ).catch(async (err: Error) => {
      throw new Error(`${err.message}; the failover says:\n${await this.lastWords(service, cell)}`, { cause: err });
    });
  }

  private async lastWords(service: string, cell: string): Promise<string> {
    const dossier = await this.handle(service, cell).query<Dossier>('dossier');
    return dossier.entries
      .slice(-10)
      .map(({ at, what }) => `${at} ${what}`)
      .join('\n');
  }

  /** The machine on which the cell's program runs loses power. */
  kill(cell: string): void {
    closeNow(this.servers.get(cell)!);
  }

  async apply(services: readonly FleetService[]): Promise<void> {
    await this.store.apply(await this.documents(services));
  }

  private async documents(services: readonly FleetService[]) {
    const documents: (ServiceDocument | CellDocument | BlueprintDocument)[] = [];
    for (const [i, service] of services.entries()) {
      const cells = this.cellsOf(service);
      const shareBp = 10_000 / cells.length;
      documents.push(
        serviceSchema.parse({
          kind: 'Service',
          name: service.name,
          listener: { port: this.ports[i] },
          slo: { latencyMs: 500 },
          safeSplit: Object.fromEntries(cells.map((cell) => [cell, shareBp])),
          policy: { ...unguarded, ...service.policy },
        }),
        blueprintSchema.parse({
          kind: 'Blueprint',
          name: service.name,
          image: { command: [process.execPath, join(__dirname, 'answering-cell.js'), '{port}'] },
          resources: { instances: 1, memoryLimitMib: 128 },
          capacity: { requestsPerSecond: (roomForTimes * service.requestsPerSecond) / service.cells },
          readiness: { timeoutS: 60 },
          warmUp: [{ kind: 'connections', path: '/healthz' }],
        }),
      );
      for (const cell of cells) documents.push(await this.cellDocument(service.name, cell));
    }
    return documents;
  }

  private async cellDocument(service: string, cell: string): Promise<CellDocument> {
    const server = this.servers.get(cell) ?? (await listening());
    this.servers.set(cell, server);
    const { port } = server.address() as AddressInfo;
    return cellSchema.parse({
      kind: 'Cell',
      name: cell,
      service,
      role: cell.endsWith('-a') ? 'primary' : 'secondary',
      blueprint: service,
      instances: [{ name: `${cell}-1`, address: '127.0.0.1', port }],
    });
  }

  /** Callers, at a steady rate whatever they are answered, and somebody who notes every change of the split. */
  private async open({ name, requestsPerSecond }: FleetService, port: number): Promise<void> {
    await waitUntil(() => this.call(port), { withinMs: 60_000, what: `Envoy serves ${name}` });
    this.underWay.push(this.calling(port, requestsPerSecond), this.noting(name));
  }

  /** Nobody moves traffic that no load report has told of. */
  private async untilMeasured(service: string): Promise<void> {
    await waitUntil(async () => (await this.traffic.getTraffic(service)).cells.every((c) => c.measured), {
      withinMs: 60_000,
      what: `load reports cover every cell of ${service}`,
    });
  }

  private async calling(port: number, requestsPerSecond: number): Promise<void> {
    const beganMs = performance.now();
    for (let sent = 0; !this.ending.signal.aborted; await pause(10)) {
      const due = ((performance.now() - beganMs) / 1000) * requestsPerSecond;
      for (; sent < due; sent++) {
        void this.call(port).then((isGood) => (this.answered[isGood ? 'good' : 'bad'] += 1));
      }
    }
  }

  private call(port: number): Promise<boolean> {
    return new Promise((resolve) => {
      const request = get({ host: '127.0.0.1', port, path: '/', agent: this.agent, timeout: 5000 }, (response) => {
        response.resume();
        response.on('end', () => resolve(response.statusCode === 200));
      });
      request.on('timeout', () => request.destroy());
      request.on('error', () => resolve(false));
    });
  }

  private async noting(service: string): Promise<void> {
    const { signal } = this.ending;
    const pending = new Map<number, Omit<Seen, 'atMs'>>();
    for await (const event of this.traffic.watch(service, { signal })) {
      if (event.kind === 'change') {
        const { epoch, by, split } = event.change;
        const shares = Object.fromEntries(split.map((s) => [s.cell, s.shareBp]));
        pending.set(epoch, { service, epoch, by, split: shares });
      }
      if (event.kind !== 'progress' || event.progress.acknowledged === 0 || event.progress.pending.length > 0) continue;
      // What proxies hold of an epoch, they hold instead of every one before.
      for (const [epoch, change] of pending) {
        if (epoch > event.progress.epoch) continue;
        pending.delete(epoch);
        this.changes.push({ ...change, atMs: performance.now() });
      }
    }
  }

  private async telling(): Promise<void> {
    while (!this.ending.signal.aborted) {
      const beganMs = Date.now();
      await Promise.allSettled([...this.risks.values()].map((risk) => this.say(risk)));
      await pause(Math.max(100, tellEveryMs - (Date.now() - beganMs)));
    }
  }

  private async say(risk: { service: string; cell: string; level: RiskLevel; episode: string }): Promise<void> {
    const { service, cell, level, episode } = risk;
    const event: RiskEvent = {
      eventId: randomUUID(),
      episodeId: episode,
      service,
      cell,
      at: new Date().toISOString(),
      level,
      probability: { clear: 0.1, prepare: 0.45, shift: 0.8 }[level],
      horizonS: 60,
      health: 50,
      timeToFailureS: { p10: null, p50: null, p90: null },
      trust: 1,
      drivers: [],
      model: 'benchmark',
    };
    await this.notifier.notify(event);
  }
}

async function listening(): Promise<Server> {
  const server = createServer((_, response) => response.end('ok'));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

function closeNow(server: Server): void {
  server.close();
  server.closeAllConnections();
}
