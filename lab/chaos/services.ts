/** The reference services as the lab deploys them: their variants, what each can carry, and which faults it can have. */
import { join } from 'node:path';
import { packageRoot } from '../../package-root';
import type { InstanceFault, LabService } from '../contract';

export const loadShapes = ['steady', 'diurnal', 'steps', 'bursts', 'ramps', 'noise'] as const;
export type LoadShape = (typeof loadShapes)[number];

/** How a service is deployed and loaded; all cells of an episode are alike in this. */
export interface Variant {
  /** `<service>-<number>`. */
  id: string;
  service: LabService;
  slots: number;
  serviceMs: number;
  knobs: Readonly<Record<string, number>>;
  /** Of V8; undefined for the service that is not JavaScript. */
  heapMib: number | undefined;
  /** Enforced by the kernel; undefined without a limit. */
  memoryLimitBytes: number | undefined;
  /** In cores; undefined without one. */
  cpuQuota: number | undefined;
  fdLimit: number;
  /** Size of the instance's file system; undefined for services that write no files. */
  diskBytes: number | undefined;
  /** What one cell carries, in requests per second. */
  capacity: number;
  /** Mean load as a share of the capacity. */
  loadLevel: number;
  loadShape: LoadShape;
  /** What stands behind it: mean time and slots of the store or downstream. */
  store: { slots: number; serviceMs: number } | undefined;
  /** Connections to what it depends on, or that it works with; undefined without a pool. */
  pool: number | undefined;
  /** p99 of a well cell at moderate load. */
  nominalP99Ms: number;
  /** The objective, five times that. */
  sloMs: number;
}

export interface ServiceKind {
  /** What it reaches through the lab's proxy. */
  dependency: 'store' | 'downstream' | 'postgres' | 'kafka' | undefined;
  /** Faults of its own beside those that every service can have. */
  ownFaults: readonly InstanceFault[];
  /** CPU is what it serves with. */
  cpuBound: boolean;
  /** How often it is chosen, relative to the others: what costs the recording machine much is chosen less often. */
  weight: number;
}

export const serviceKinds: Readonly<Record<LabService, ServiceKind>> = {
  sessions: { dependency: undefined, ownFaults: [], cpuBound: false, weight: 3 },
  render: { dependency: undefined, ownFaults: [], cpuBound: true, weight: 2 },
  orders: { dependency: 'postgres', ownFaults: ['pool-leak'], cpuBound: false, weight: 3 },
  journal: { dependency: undefined, ownFaults: ['disk-fill', 'disk-slow'], cpuBound: false, weight: 3 },
  gateway: { dependency: 'downstream', ownFaults: ['pool-leak'], cpuBound: false, weight: 3 },
  worker: { dependency: 'kafka', ownFaults: ['consumer-slow'], cpuBound: false, weight: 2 },
  lookup: { dependency: 'store', ownFaults: ['cache-flush'], cpuBound: false, weight: 4 },
  reports: { dependency: undefined, ownFaults: ['disk-fill', 'disk-slow'], cpuBound: false, weight: 3 },
};

const mib = 1024 * 1024;

interface VariantRow {
  slots: number;
  serviceMs: number;
  load: number;
  shape: LoadShape;
  knobs?: Record<string, number>;
  heapMib?: number;
  memoryMib?: number;
  cpuQuota?: number;
  fdLimit?: number;
  diskMib?: number;
  /** Requests per second, where slots and their time do not tell it. */
  capacity?: number;
  nominalP99Ms?: number;
  store?: { slots: number; serviceMs: number };
}

const rows: Readonly<Record<LabService, readonly VariantRow[]>> = {
  sessions: [
    {
      slots: 2,
      serviceMs: 80,
      load: 0.5,
      shape: 'steady',
      heapMib: 48,
      cpuQuota: 0.12,
      knobs: { items: 2000, preloaded: 1, burnSliceMs: 20 },
    },
    {
      slots: 4,
      serviceMs: 150,
      load: 0.45,
      shape: 'diurnal',
      heapMib: 64,
      memoryMib: 160,
      knobs: { items: 20_000, preloaded: 1 },
    },
    {
      slots: 2,
      serviceMs: 60,
      load: 0.35,
      shape: 'bursts',
      heapMib: 96,
      cpuQuota: 0.2,
      fdLimit: 128,
      knobs: { items: 30_000, burnSliceMs: 30 },
    },
    {
      slots: 5,
      serviceMs: 220,
      load: 0.6,
      shape: 'noise',
      heapMib: 128,
      memoryMib: 256,
      cpuQuota: 0.15,
      knobs: { items: 5000, burnSliceMs: 25 },
    },
    {
      slots: 2,
      serviceMs: 90,
      load: 0.5,
      shape: 'steps',
      heapMib: 64,
      fdLimit: 96,
      knobs: { items: 10_000, basket: 12 },
    },
  ],
  render: [
    { slots: 2, serviceMs: 6, load: 0.4, shape: 'steady', heapMib: 64, cpuQuota: 0.12 },
    { slots: 3, serviceMs: 8, load: 0.45, shape: 'diurnal', heapMib: 64, cpuQuota: 0.15, memoryMib: 128 },
    { slots: 2, serviceMs: 4, load: 0.35, shape: 'bursts', heapMib: 96, cpuQuota: 0.1, fdLimit: 96 },
    { slots: 4, serviceMs: 10, load: 0.4, shape: 'ramps', heapMib: 48, cpuQuota: 0.15 },
    { slots: 2, serviceMs: 7, load: 0.35, shape: 'noise', heapMib: 128, cpuQuota: 0.14, memoryMib: 192 },
  ],
  orders: [
    {
      slots: 64,
      serviceMs: 90,
      load: 0.4,
      shape: 'steady',
      heapMib: 64,
      cpuQuota: 0.15,
      knobs: { pool: 3, burnSliceMs: 20 },
    },
    { slots: 64, serviceMs: 160, load: 0.45, shape: 'diurnal', heapMib: 64, knobs: { pool: 4 }, memoryMib: 160 },
    {
      slots: 64,
      serviceMs: 250,
      load: 0.4,
      shape: 'steps',
      heapMib: 96,
      cpuQuota: 0.2,
      knobs: { pool: 8, burnSliceMs: 30 },
      fdLimit: 128,
    },
    { slots: 64, serviceMs: 120, load: 0.35, shape: 'noise', heapMib: 48, knobs: { pool: 5, rows: 1000 } },
    {
      slots: 64,
      serviceMs: 300,
      load: 0.3,
      shape: 'ramps',
      heapMib: 128,
      knobs: { pool: 12, burnSliceMs: 25 },
      cpuQuota: 0.12,
    },
  ],
  journal: [
    { slots: 2, serviceMs: 70, load: 0.45, shape: 'steady', heapMib: 64, diskMib: 16, knobs: { bytes: 8192 } },
    {
      slots: 3,
      serviceMs: 110,
      load: 0.4,
      shape: 'bursts',
      heapMib: 64,
      diskMib: 32,
      cpuQuota: 0.15,
      knobs: { bytes: 16_384, keepBytes: 8 * mib, burnSliceMs: 25 },
    },
    {
      slots: 2,
      serviceMs: 60,
      load: 0.35,
      shape: 'diurnal',
      heapMib: 48,
      diskMib: 12,
      knobs: { bytes: 4096, keepBytes: 2 * mib, fsyncEvery: 1 },
    },
    {
      slots: 5,
      serviceMs: 200,
      load: 0.55,
      shape: 'noise',
      heapMib: 96,
      diskMib: 64,
      cpuQuota: 0.2,
      knobs: { bytes: 32_768, keepBytes: 24 * mib, burnSliceMs: 30 },
    },
    {
      slots: 3,
      serviceMs: 120,
      load: 0.4,
      shape: 'ramps',
      heapMib: 64,
      diskMib: 24,
      fdLimit: 128,
      knobs: { bytes: 8192, keepBytes: 12 * mib },
    },
  ],
  gateway: [
    {
      slots: 64,
      serviceMs: 10,
      load: 0.35,
      shape: 'steady',
      heapMib: 64,
      cpuQuota: 0.15,
      knobs: { pool: 5, retries: 1, burnSliceMs: 20 },
      store: { slots: 16, serviceMs: 120 },
    },
    {
      slots: 64,
      serviceMs: 20,
      load: 0.4,
      shape: 'diurnal',
      heapMib: 64,
      knobs: { pool: 4, retries: 2, timeoutMs: 900 },
      memoryMib: 160,
      store: { slots: 12, serviceMs: 130 },
    },
    {
      slots: 64,
      serviceMs: 5,
      load: 0.35,
      shape: 'steps',
      heapMib: 96,
      cpuQuota: 0.2,
      knobs: { pool: 8, retries: 0, burnSliceMs: 30 },
      fdLimit: 128,
      store: { slots: 16, serviceMs: 200 },
    },
    {
      slots: 64,
      serviceMs: 15,
      load: 0.4,
      shape: 'bursts',
      heapMib: 48,
      knobs: { pool: 3, retries: 1, timeoutMs: 1200 },
      store: { slots: 10, serviceMs: 90 },
    },
    {
      slots: 64,
      serviceMs: 30,
      load: 0.3,
      shape: 'noise',
      heapMib: 128,
      cpuQuota: 0.12,
      knobs: { pool: 10, retries: 2, timeoutMs: 1500, burnSliceMs: 25 },
      store: { slots: 20, serviceMs: 250 },
    },
  ],
  worker: [
    { slots: 1, serviceMs: 50, load: 0.45, shape: 'steady', heapMib: 64, cpuQuota: 0.2 },
    { slots: 2, serviceMs: 100, load: 0.45, shape: 'diurnal', heapMib: 64, memoryMib: 192 },
    { slots: 2, serviceMs: 120, load: 0.4, shape: 'bursts', heapMib: 96, cpuQuota: 0.25 },
    { slots: 4, serviceMs: 220, load: 0.5, shape: 'noise', heapMib: 64 },
    { slots: 2, serviceMs: 80, load: 0.3, shape: 'steps', heapMib: 96, fdLimit: 128 },
  ],
  lookup: [
    {
      slots: 6,
      serviceMs: 20,
      load: 0.2,
      shape: 'steady',
      heapMib: 64,
      cpuQuota: 0.15,
      knobs: { cacheItems: 1000, preloaded: 1, burnSliceMs: 20 },
      capacity: 60,
      store: { slots: 1, serviceMs: 120 },
    },
    {
      slots: 8,
      serviceMs: 30,
      load: 0.25,
      shape: 'diurnal',
      heapMib: 64,
      knobs: { cacheItems: 1500, keys: 7500, preloaded: 1 },
      capacity: 60,
      memoryMib: 160,
      store: { slots: 2, serviceMs: 180 },
    },
    {
      slots: 6,
      serviceMs: 15,
      load: 0.22,
      shape: 'noise',
      heapMib: 96,
      cpuQuota: 0.2,
      knobs: { cacheItems: 600, keys: 3000, burnSliceMs: 30 },
      capacity: 60,
      fdLimit: 128,
      store: { slots: 1, serviceMs: 100 },
    },
    {
      slots: 10,
      serviceMs: 40,
      load: 0.25,
      shape: 'ramps',
      heapMib: 48,
      knobs: { cacheItems: 1000, preloaded: 1, pool: 6 },
      capacity: 60,
      store: { slots: 2, serviceMs: 200 },
    },
    {
      slots: 8,
      serviceMs: 25,
      load: 0.2,
      shape: 'bursts',
      heapMib: 128,
      cpuQuota: 0.12,
      knobs: { cacheItems: 400, keys: 2000, burnSliceMs: 25 },
      capacity: 60,
      store: { slots: 1, serviceMs: 140 },
    },
  ],
  reports: [
    { slots: 2, serviceMs: 70, load: 0.45, shape: 'steady', memoryMib: 64, diskMib: 16, knobs: { bytes: 8192 } },
    {
      slots: 3,
      serviceMs: 120,
      load: 0.5,
      shape: 'diurnal',
      memoryMib: 96,
      diskMib: 24,
      cpuQuota: 0.15,
      knobs: { bytes: 16_384, keepBytes: 8 * mib },
    },
    {
      slots: 5,
      serviceMs: 200,
      load: 0.45,
      shape: 'noise',
      memoryMib: 128,
      diskMib: 48,
      fdLimit: 96,
      knobs: { bytes: 32_768, keepBytes: 16 * mib },
    },
    {
      slots: 2,
      serviceMs: 60,
      load: 0.35,
      shape: 'steps',
      memoryMib: 48,
      diskMib: 12,
      cpuQuota: 0.12,
      knobs: { bytes: 4096, keepBytes: 3 * mib },
    },
    {
      slots: 6,
      serviceMs: 250,
      load: 0.55,
      shape: 'bursts',
      memoryMib: 160,
      diskMib: 32,
      knobs: { bytes: 8192, keepBytes: 6 * mib },
    },
  ],
};

/** Service times are log-normal; this is their 99th percentile over their mean, with a little waiting for a slot. */
const p99OverMean = 2.5;
/** HTTP, scheduling, and the machine's other work. */
const overheadMs = 15;

function nominalP99(row: VariantRow, service: LabService): number {
  if (row.nominalP99Ms !== undefined) return row.nominalP99Ms;
  // A request that needs more CPU than is left of a quota's period waits for the next ones.
  if (serviceKinds[service].cpuBound) return overheadMs + (3 * row.serviceMs) / (row.cpuQuota ?? 1) + 50;
  const own = overheadMs + p99OverMean * row.serviceMs;
  // The store's time is uniform up to 1.5 times its mean; a miss may find another one before it.
  if (service === 'lookup') return own + 3 * (row.store?.serviceMs ?? 0);
  if (service === 'gateway') return own + p99OverMean * (row.store?.serviceMs ?? 0);
  return own;
}

/** A pool may be narrower than the slots. */
function servedAtOnce(service: LabService, row: VariantRow): number {
  return service === 'orders' || service === 'gateway' ? (row.knobs?.['pool'] ?? row.slots) : row.slots;
}

function variantOf(service: LabService, row: VariantRow, number: number): Variant {
  const nominalP99Ms = Math.round(nominalP99(row, service));
  const carried = serviceKinds[service].cpuBound
    ? (1000 * (row.cpuQuota ?? 1)) / (row.serviceMs + 1.5)
    : (1000 * servedAtOnce(service, row)) / (service === 'gateway' ? (row.store?.serviceMs ?? 50) : row.serviceMs);
  return {
    id: `${service}-${number}`,
    service,
    slots: row.slots,
    serviceMs: row.serviceMs,
    knobs: row.knobs ?? {},
    heapMib: row.heapMib,
    memoryLimitBytes: row.memoryMib === undefined ? undefined : row.memoryMib * mib,
    cpuQuota: row.cpuQuota,
    fdLimit: row.fdLimit ?? 256,
    diskBytes: row.diskMib === undefined ? undefined : row.diskMib * mib,
    capacity: row.capacity ?? carried,
    loadLevel: row.load,
    loadShape: row.shape,
    store: row.store,
    pool: row.knobs?.['pool'] ?? { lookup: 8, gateway: 16, orders: 6 }[service as string],
    nominalP99Ms,
    sloMs: 5 * nominalP99Ms,
  };
}

/** All variants of the service. */
export function variantsOf(service: LabService): Variant[] {
  return rows[service].map((row, index) => variantOf(service, row, index + 1));
}

/** The program and its first arguments; the instance's configuration follows as one JSON argument. */
export function commandOf(variant: Variant): string[] {
  if (variant.service === 'reports') return ['python3', join(packageRoot, 'lab', 'services', 'reports.py')];
  return [
    process.execPath,
    ...(variant.heapMib === undefined ? [] : [`--max-old-space-size=${variant.heapMib}`]),
    join(packageRoot, 'dist', 'lab', 'services', `${variant.service}.js`),
  ];
}
