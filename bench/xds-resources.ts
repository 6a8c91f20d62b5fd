/** The work that the control planes are compared on: one service of three cells with ten instances each, whose shares move. */
import type { CellRecord, CellShare } from '../blueprints/records';
import { serviceSchema } from '../blueprints/schema';
import type { Resource } from '../envoy/resources/resource';
import { serviceResources } from '../envoy/resources/service';

export const service = 'bench';
export const cellNames = ['cell-0', 'cell-1', 'cell-2'];
const instancesPerCell = 10;

const spec = serviceSchema.parse({
  kind: 'Service',
  name: service,
  listener: { port: 10_000 },
  slo: { latencyMs: 250 },
  safeSplit: { 'cell-0': 10_000 },
});

const cells: CellRecord[] = cellNames.map((name, cell) => ({
  name,
  service,
  role: cell === 0 ? 'primary' : 'secondary',
  zone: 'local',
  blueprint: { name: service, version: 1 },
  state: 'active',
  instances: Array.from({ length: instancesPerCell }, (_, i) => ({
    name: `${name}-${i}`,
    address: `10.0.${cell}.${i + 1}`,
    port: 8080,
  })),
  sourceCell: null,
  owner: null,
}));

/**
 * What the service is at these shares, in basis points by cell. The clusters that reach one cell alone are left out:
 * a peer has one cluster, and the same work is what is compared.
 */
export function resourcesAt(weights: readonly number[]): Resource[] {
  const split: CellShare[] = cellNames.map((cell, i) => ({ cell, shareBp: weights[i] ?? 0, coverInstances: 0 }));
  const all = serviceResources({
    service: { name: service, spec },
    cells,
    traffic: { service, epoch: 1, split },
    blueprints: [],
  });
  const isService = ({ type, name }: Resource): boolean => type === 'listener' || type === 'route' || name === service;
  return all
    .filter(isService)
    .map((r) => (r.type === 'route' ? { ...r, references: r.references.filter(isCluster) } : r));
}

const isCluster = ({ name }: { name: string }): boolean => name === service;
