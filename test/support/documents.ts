/** A small, complete set of documents for tests; each can be bent to the test's purpose. */
import {
  blueprintSchema,
  cellSchema,
  serviceSchema,
  type BlueprintDocument,
  type CellDocument,
  type ServiceDocument,
} from '../../blueprints/schema';

export function serviceDocument(change: Record<string, unknown> = {}): ServiceDocument {
  return serviceSchema.parse({
    kind: 'Service',
    name: 'shop',
    listener: { port: 10080 },
    slo: { latencyMs: 250 },
    safeSplit: { 'shop-a': 5000, 'shop-b': 5000 },
    ...change,
  });
}

export function cellDocument(name: string, change: Record<string, unknown> = {}): CellDocument {
  return cellSchema.parse({
    kind: 'Cell',
    name,
    service: 'shop',
    role: name.endsWith('-a') ? 'primary' : 'secondary',
    blueprint: 'shop',
    ...change,
  });
}

export function blueprintDocument(change: Record<string, unknown> = {}): BlueprintDocument {
  return blueprintSchema.parse({
    kind: 'Blueprint',
    name: 'shop',
    image: { command: ['node', 'server.js', '--port', '{port}'] },
    resources: { memoryLimitMib: 64 },
    capacity: { requestsPerSecond: 100 },
    ...change,
  });
}

/** Service `shop` on the cells `shop-a` and `shop-b`, two instances each, made from blueprint `shop`. */
export function shopDocuments() {
  const instances = (cell: string, port: number) =>
    [1, 2].map((n) => ({ name: `${cell}-${n}`, address: '127.0.0.1', port: port + n }));
  return [
    serviceDocument(),
    cellDocument('shop-a', { instances: instances('shop-a', 20100) }),
    cellDocument('shop-b', { instances: instances('shop-b', 20200) }),
    blueprintDocument(),
  ];
}
