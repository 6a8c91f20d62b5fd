/** The demo's services, as the documents a user would write: three catalogues with different wishes, and a ledger with data. */
import type { BlueprintDocument, CellDocument, Document, Policy, ServiceDocument } from '../../blueprints/schema';
import { documentSchema } from '../../blueprints/schema';

/** Requests a second that one cell of two instances carries: 2 instances x 2 slots / 40 ms. */
export const cellCapacityRps = 100;
/** 60 % of both cells: one alone would need 120 % of its capacity. */
export const demoRatePerSecond = 120;
export const demoSloMs = 250;
export const demoMemoryLimitMib = 64;

/** What callers ask for: the catalogue's items, at random. */
export const demoPaths = Array.from({ length: 2000 }, (_, id) => `/items/${id}`);

/** Room for a leak of half a minute above what the ledger needs. */
export const ledgerMemoryLimitMib = 128;
/** Every write and every current read is a Kafka transaction. */
export const ledgerSloMs = 500;

/** The log of a ledger's state. */
export const ledgerTopic = (service: string): string => `${service}.changelog`;

export interface DemoService {
  service: string;
  port: number;
  autonomy: Policy['autonomy'];
  blueprint: 'catalogue' | 'ledger';
}

export interface DemoDocumentsOptions {
  services: DemoService[];
  kafkaBrokers: string[];
}

function referenceBlueprint(kafkaBrokers: string[]): BlueprintDocument {
  return documentSchema.parse({
    kind: 'Blueprint',
    name: 'catalogue',
    image: {
      os: 'host',
      command: [
        'node',
        '--max-old-space-size={memoryLimitMib}',
        'dist/lab/reference-service.js',
        '--port',
        '{port}',
        '--service',
        '{service}',
        '--cell',
        '{cell}',
        '--instance',
        '{instance}',
        '--kafka',
        kafkaBrokers.join(','),
      ],
    },
    dependencies: [{ name: 'node', version: process.versions.node }],
    network: { egress: kafkaBrokers },
    resources: { instances: 2, memoryLimitMib: demoMemoryLimitMib },
    capacity: { requestsPerSecond: cellCapacityRps },
    readiness: { path: '/healthz', timeoutS: 20 },
    warmUp: [
      { kind: 'preload', path: '/admin/preload', minEntries: 2000 },
      { kind: 'connections', perInstance: 4, path: '/healthz' },
      { kind: 'probe', path: '/items/1', requests: 20 },
    ],
  }) as BlueprintDocument;
}

/** A service that keeps its state in a Kafka changelog. One instance: the first one of a cell writes. */
function ledgerBlueprint(service: string, kafkaBrokers: string[]): BlueprintDocument {
  const flags = {
    ...{ service: '{service}', cell: '{cell}', instance: '{instance}', address: '{address}', port: '{port}' },
    ...{ kafka: kafkaBrokers.join(','), topic: ledgerTopic(service) },
  };
  return documentSchema.parse({
    kind: 'Blueprint',
    name: 'ledger',
    image: {
      os: 'host',
      command: [
        'node',
        '--max-old-space-size={memoryLimitMib}',
        'dist/lab/stateful/changelog-service.js',
        '--ailing',
        ...Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, value]),
      ],
      environment: { KAFKAJS_NO_PARTITIONER_WARNING: '1' },
    },
    dependencies: [{ name: 'node', version: process.versions.node }],
    network: { egress: kafkaBrokers },
    resources: { instances: 1, memoryLimitMib: ledgerMemoryLimitMib },
    capacity: { requestsPerSecond: cellCapacityRps },
    dataSync: { kind: 'kafka-changelog', brokers: kafkaBrokers, topic: ledgerTopic(service) },
    readiness: { path: '/healthz', timeoutS: 20 },
    warmUp: [{ kind: 'connections', perInstance: 4, path: '/healthz' }],
  }) as BlueprintDocument;
}

function serviceDocument({ service, port, autonomy, blueprint }: DemoService): ServiceDocument {
  // What was not answered may have been done: a ledger's callers live with some unknown outcomes and ask again. And the
  // cell that owns the data must not wait for its turn, nor be taken for a bad build: every blueprint here is minutes old.
  const tolerance =
    blueprint === 'ledger' ? { maxErrorRatio: 0.05, maxConcurrentFailovers: 2, portability: 'ignore' } : {};
  return documentSchema.parse({
    kind: 'Service',
    name: service,
    listener: { port },
    slo: { latencyMs: blueprint === 'ledger' ? ledgerSloMs : demoSloMs },
    healthCheck: { path: '/healthz', intervalMs: 500 },
    safeSplit: { [`${service}-a`]: 5000, [`${service}-b`]: 5000 },
    policy: { autonomy, cooldownS: 5, wayBack: { calmS: 10 }, ...tolerance },
  }) as ServiceDocument;
}

function cellDocument(service: string, letter: 'a' | 'b', blueprint: string): CellDocument {
  return documentSchema.parse({
    kind: 'Cell',
    name: `${service}-${letter}`,
    service,
    role: letter === 'a' ? 'primary' : 'secondary',
    zone: `zone-${letter}`,
    blueprint,
  }) as CellDocument;
}

export function demoDocuments({ services, kafkaBrokers }: DemoDocumentsOptions): Document[] {
  return [
    referenceBlueprint(kafkaBrokers),
    ...services.flatMap((s) => [
      ...(s.blueprint === 'ledger' ? [ledgerBlueprint(s.service, kafkaBrokers)] : []),
      serviceDocument(s),
      cellDocument(s.service, 'a', s.blueprint),
      cellDocument(s.service, 'b', s.blueprint),
    ]),
  ];
}
