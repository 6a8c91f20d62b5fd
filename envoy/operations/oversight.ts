/**
 * All that stands around the load balancer rather than in it: who is let in, what is counted, what is written down, and
 * what people and probes are shown. The control plane makes one, hands its parts on, and tells it what happens.
 */
import type { ServerCredentials, ServerInterceptor } from '@grpc/grpc-js';
import { hostname } from 'node:os';
import type { Logger } from 'pino';
import type { AuditRecord } from '../../blueprints/audit';
import type { ControlPlaneSettings, TlsSettings } from '../../blueprints/control-plane-settings';
import type { TrafficState } from '../../blueprints/records';
import type { Resource } from '../resources/resource';
import { AuditLog } from '../security/audit-log';
import { serverCredentials } from '../security/credentials';
import { PublishAudit } from '../security/publish-audit';
import { SecretFiles } from '../security/secrets';
import { CertificateGate } from '../security/stream-gate';
import { trafficAuthority, type AskedChange } from '../security/traffic-authority';
import { WatchedTls } from '../security/watched-tls';
import type { StreamGate } from '../xds/gate';
import { observers, type XdsObserver } from '../xds/observer';
import type { XdsServer } from '../xds/server';
import { configDump } from './config-dump';
import { ControlPlaneMetrics } from './metrics';
import { readiness, type Readiness } from './readiness';
import { startOperations, type Operations } from './server';

export interface OversightOptions {
  settings: ControlPlaneSettings;
  log: Logger;
  /** Adds a row to the audit; left out where there is no table for it. */
  writeAudit?: ((record: AuditRecord) => Promise<void>) | undefined;
  /** Names this control plane among its replicas. */
  replica?: string;
  /** Metrics of the process itself too; only one control plane of a process can have them. */
  processMetrics?: boolean;
}

/** What it looks at. */
export interface Overseen {
  xds: Pick<XdsServer, 'inspect' | 'published' | 'acknowledgements' | 'queued'>;
  publisher: { allProblems(): ReadonlyMap<string, string>; trafficOf(service: string): TrafficState | undefined };
}

/** Days before its end from which a certificate that nobody renews is worth a word. */
const expiresSoonDays = 3;

export class Oversight {
  readonly replica: string;
  readonly metrics: ControlPlaneMetrics;
  readonly gate: StreamGate;
  readonly observer: XdsObserver;
  readonly authority: ServerInterceptor;
  private readonly audit: AuditLog;
  private readonly secrets: SecretFiles;
  private readonly certificates = new Map<string, WatchedTls>();
  private overseen: Overseen | undefined;
  private operations: Operations | undefined;
  private onSecrets: () => void = () => undefined;
  private storeReadAt: number | undefined;
  private storeProblem: string | undefined;
  private isListening = false;
  private isStopping = false;

  constructor(private readonly options: OversightOptions) {
    const { settings, log, writeAudit } = options;
    this.replica = options.replica ?? `${hostname()}/${process.pid}`;
    this.metrics = new ControlPlaneMetrics(
      {
        configSize: () => this.configSize(),
        admissionQueue: () => this.overseen?.xds.queued ?? 0,
        unpublishable: () => this.overseen?.publisher.allProblems().size ?? 0,
        storeAgeS: () => this.storeAgeS(),
        certificates: () =>
          [...this.certificates].map(([place, { current, problem }]) => ({
            place,
            expiresAt: current.expiresAt,
            problem,
          })),
      },
      { ofProcess: options.processMetrics ?? false },
    );
    this.audit = new AuditLog({ log, write: writeAudit, onUnwritten: () => this.metrics.noteAuditLost() });
    this.gate = new CertificateGate({ rules: settings.xdsTls && settings.proxies, limits: settings.limits });
    this.authority = trafficAuthority({
      principals: settings.trafficTls && settings.principals,
      log,
      asked: (change) => this.noteAsked(change),
    });
    this.observer = observers(
      this.metrics,
      new PublishAudit({
        splitOf: (service) => this.overseen?.publisher.trafficOf(service),
        acknowledgements: (keys, waitMs) => this.overseen!.xds.acknowledgements(keys, waitMs),
        waitMs: settings.acknowledgeTimeoutMs,
        replica: this.replica,
        record: (record) => this.audit.record(record),
      }),
    );
    this.secrets = new SecretFiles({
      secrets: settings.secrets,
      log,
      everyMs: settings.tlsReloadMs,
      onChange: () => this.onSecrets(),
    });
  }

  /** Opens the operations port, so that probes are answered while everything else still starts. */
  async start(overseen: Overseen, onSecrets: () => void): Promise<void> {
    const { settings, log } = this.options;
    this.overseen = overseen;
    await this.secrets.look();
    this.onSecrets = onSecrets;
    this.operations = await startOperations({
      settings: settings.operations,
      processes: settings.processes,
      log,
      readiness: () => this.readiness(),
      metrics: () => this.metrics.text(),
      proxies: () => ({ replica: this.replica, at: new Date().toISOString(), proxies: overseen.xds.inspect() }),
      configDump: () => ({
        replica: this.replica,
        resources: configDump(overseen.xds.published()),
        unpublishable: Object.fromEntries(overseen.publisher.allProblems()),
      }),
    });
    if (this.operations.tls) this.certificates.set('operations', this.operations.tls);
    log.info({ operationsAddress: this.operations.address }, `metrics and health at ${this.operations.address}`);
  }

  /** host:port of metrics, health and dumps. */
  get address(): string {
    return this.operations?.address ?? '';
  }

  xdsCredentials(): ServerCredentials {
    return this.credentials('xDS', this.options.settings.xdsTls);
  }

  trafficCredentials(): ServerCredentials {
    return this.credentials('traffic API', this.options.settings.trafficTls);
  }

  /** What proxies may have beside their services: secrets, for their owners alone. */
  secretResources(): Resource[] {
    return this.secrets.resources();
  }

  storeWasRead(): void {
    this.storeReadAt = performance.now();
    this.storeProblem = undefined;
  }

  storeCouldNotBeRead(why: string): void {
    this.storeProblem = why;
  }

  isServing(): void {
    this.isListening = true;
  }

  willStop(): void {
    this.isStopping = true;
  }

  readiness(): Readiness {
    return readiness({
      hasPublished: () => this.storeReadAt !== undefined,
      isListening: () => this.isListening,
      isStopping: () => this.isStopping,
      storeAgeS: () => this.storeAgeS(),
      storeProblem: () => this.storeProblem,
      concerns: () => this.concerns(),
    });
  }

  async close(): Promise<void> {
    this.secrets.close();
    for (const tls of this.certificates.values()) tls.close();
    await this.audit.close();
    await this.operations?.close();
  }

  private credentials(place: string, files: TlsSettings | undefined): ServerCredentials {
    const { log, settings } = this.options;
    if (!files) return serverCredentials(undefined);
    const tls = new WatchedTls(files, { what: place, log, everyMs: settings.tlsReloadMs });
    this.certificates.set(place, tls);
    return serverCredentials(tls);
  }

  private storeAgeS(): number | undefined {
    return this.storeReadAt === undefined ? undefined : (performance.now() - this.storeReadAt) / 1000;
  }

  private concerns(): string[] {
    const found: string[] = [];
    for (const [service, why] of this.overseen?.publisher.allProblems() ?? [])
      found.push(`service ${service} cannot be published and stays as it was: ${why}`);
    for (const [name, why] of this.secrets.problems) found.push(`secret ${name} stays as it was: ${why}`);
    for (const [place, { problem, current }] of this.certificates) {
      if (problem) found.push(`${place}: the certificate in use stays as it was: ${problem}`);
      const days = (current.expiresAt - Date.now()) / 86_400_000;
      if (days < expiresSoonDays) found.push(`${place}: the certificate in use ends in ${days.toFixed(1)} days`);
    }
    return found;
  }

  private configSize(): { type: string; resources: number; bytes: number }[] {
    const sizes = new Map<string, { type: string; resources: number; bytes: number }>();
    for (const { type, packed } of this.overseen?.xds.published() ?? []) {
      const size = sizes.get(type) ?? { type, resources: 0, bytes: 0 };
      sizes.set(type, { type, resources: size.resources + 1, bytes: size.bytes + packed.length });
    }
    return [...sizes.values()];
  }

  private noteAsked({ method, kind, idempotencyKey, details, ...change }: AskedChange): void {
    this.metrics.noteAsked(method, change.outcome);
    const { service, by, identity, reason, outcome } = change;
    this.audit.record({
      kind: 'request',
      service,
      by,
      identity,
      reason,
      outcome,
      details: { method, caller: kind, idempotencyKey, ...(details && { answer: details }), replica: this.replica },
    });
  }
}
