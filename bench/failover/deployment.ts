/** How an instance of a case is started: the lab's program under its limits, as a blueprint that any provider call can repeat. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { BlueprintDocument, CellDocument, Document } from '../../blueprints/schema';
import { documentSchema } from '../../blueprints/schema';
import { labRunsDir, quotaCommand } from '../../lab/chaos/limits';
import { commandOf } from '../../lab/chaos/services';
import type { Peer } from '../../lab/contract';
import type { Deployment } from './cases';

export const healthIntervalMs = 500;

/** The last part of a cell's name, which says whose dependency it uses. */
export const letters = ['a', 'b', 'c'] as const;
export type Letter = (typeof letters)[number];

/** Enters a group of its own, mounts its small disk: all before the program takes the shell's place. Answers the script's file. */
function startScript({ variant }: Deployment, run: string): string {
  const folder = join(labRunsDir, run);
  const disk = `${folder}/$instance`;
  const lines = [
    'instance=$1',
    'shift',
    ...(variant.cpuQuota === undefined ? [] : [quotaCommand(`${run}/$instance`, variant.cpuQuota)]),
    ...(variant.diskBytes === undefined
      ? []
      : [`mkdir -p "${disk}" && mount -t tmpfs -o size=${variant.diskBytes},mode=0755 understudy-lab "${disk}"`]),
    'exec "$@"',
  ];
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `start-${variant.service}.sh`);
  writeFileSync(file, `${lines.join('\n')}\n`);
  return file;
}

function commandLine(deployment: Deployment, run: string, dependency: Peer | undefined): string[] {
  const { variant } = deployment;
  const disk = join(labRunsDir, run, '{instance}');
  const config = {
    service: variant.service,
    cell: '{cell}',
    instance: '{instance}',
    port: '{port}',
    stepMs: 1000,
    slots: variant.slots,
    serviceMs: variant.serviceMs,
    knobs: { changeAgeS: 86_400, ...variant.knobs },
    ...(variant.diskBytes === undefined ? {} : { dir: disk }),
    ...(dependency && { dependency }),
  };
  // The port is a number, and only the provider knows it.
  const text = JSON.stringify(config).replace('"{port}"', '{port}');
  const limit = `--nofile=${variant.fdLimit}:${variant.fdLimit}`;
  return ['sh', startScript(deployment, run), '{instance}', 'prlimit', limit, ...commandOf(variant), text];
}

/** One blueprint per cell: they differ in the dependency of their zone, and so does what is made from them. */
export function blueprintOf(
  deployment: Deployment,
  cell: string,
  run: string,
  dependency: Peer | undefined,
): BlueprintDocument {
  const { variant, cellCapacity } = deployment;
  return documentSchema.parse({
    kind: 'Blueprint',
    name: cell,
    image: { os: 'host', command: commandLine(deployment, run, dependency) },
    dependencies: [{ name: 'node', version: process.versions.node }],
    ...(dependency && { network: { egress: [`${dependency.host}:${dependency.port}`] } }),
    resources: { instances: 1, memoryLimitMib: variant.heapMib ?? 64 },
    capacity: { requestsPerSecond: cellCapacity },
    readiness: { path: '/healthz', timeoutS: 30 },
    warmUp: [
      { kind: 'connections', perInstance: 4, path: '/healthz' },
      { kind: 'probe', path: '/work?key=1', requests: 20 },
    ],
  }) as BlueprintDocument;
}

export function serviceDocuments(
  deployment: Deployment,
  service: string,
  port: number,
  blueprints: readonly BlueprintDocument[],
): Document[] {
  const cells = blueprints.map(({ name }) => name);
  const shareBp = Math.floor(10_000 / cells.length);
  return [
    ...blueprints,
    documentSchema.parse({
      kind: 'Service',
      name: service,
      listener: { port },
      slo: { latencyMs: deployment.variant.sloMs },
      healthCheck: { path: '/healthz', intervalMs: healthIntervalMs },
      safeSplit: Object.fromEntries(cells.map((cell) => [cell, shareBp])),
      // All else is as it comes: nothing is tuned to the bench.
      policy: { autonomy: 'act' },
    }),
    ...cells.map((cell, index) => cellDocument(service, cell, index)),
  ];
}

function cellDocument(service: string, cell: string, index: number): CellDocument {
  return documentSchema.parse({
    kind: 'Cell',
    name: cell,
    service,
    role: index === 0 ? 'primary' : 'secondary',
    zone: `zone-${letters[index]}`,
    blueprint: cell,
  }) as CellDocument;
}

/** Of a run that is over: left alone, and hardly asked for its health any more. */
export function laidToRest(document: Document): Document {
  if (document.kind !== 'Service') return document;
  return {
    ...document,
    policy: { ...document.policy, autonomy: 'observe' },
    healthCheck: { ...document.healthCheck, intervalMs: 3_600_000 },
  };
}
