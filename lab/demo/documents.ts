/** The demo's three services, as the documents a user would write: same blueprint, same load, different wishes. */
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

export interface DemoService {
  service: string;
  port: number;
  autonomy: Policy['autonomy'];
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

function serviceDocument({ service, port, autonomy }: DemoService): ServiceDocument {
  return documentSchema.parse({
    kind: 'Service',
    name: service,
    listener: { port },
    slo: { latencyMs: demoSloMs },
    healthCheck: { path: '/healthz', intervalMs: 500 },
    safeSplit: { [`${service}-a`]: 5000, [`${service}-b`]: 5000 },
    policy: { autonomy, cooldownS: 5, wayBack: { calmS: 10 } },
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
      serviceDocument(s),
      cellDocument(s.service, 'a', 'catalogue'),
      cellDocument(s.service, 'b', 'catalogue'),
    ]),
  ];
}
