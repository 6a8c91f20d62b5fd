/** The faults of the table: on which of the lab's services each strikes, how it grows, and what of it is known beforehand. */
import {
  lookAlikesOf,
  planFault,
  planLookAlike,
  type CatalogueContext,
  type FailureMode,
  type LookAlike,
  type Order,
} from '../../lab/chaos/catalogue';
import { variantsOf, type Variant } from '../../lab/chaos/services';
import { faultShapes } from '../../lab/chaos/shapes';
import type { LabService } from '../../lab/contract';
import { pick, seededRandom } from '../../lab/random';

export const faultNames = [
  'leak-to-death',
  'cpu-saturation',
  'pool-exhaustion',
  'disk-full',
  'slow-dependency',
  'cache-loss',
  'gray-failure',
  'abrupt-crash',
  'look-alikes',
] as const;
export type FaultName = (typeof faultNames)[number];

/** How a service is deployed here: its cells are the lab's, their load is this bench's. */
export interface Deployment {
  variant: Variant;
  /** What one cell carries, in requests per second. */
  cellCapacity: number;
  /** Of the whole service: 60 % of two cells. */
  ratePerSecond: number;
}

export interface Case {
  fault: FaultName;
  seed: number;
  /** The lab's name of what happens: the failure mode or the look-alike. */
  event: FailureMode | LookAlike;
  predictable: boolean;
  /** In words, for the table. */
  mechanism: string;
  deployment: Deployment;
  /** By seconds since the load began. */
  orders: Order[];
  faultAtS: number;
  /** When the failure is planned to be there; null for what passes. What foresight knows. */
  failureAtS: number | null;
  endS: number;
}

/** Load before the fault: so much of a cell's own past is known when it begins. */
export const baselineS = 20;
/** From the fault to its planned failure; the lab trains on 7 to 240 s. */
const expectedS = { low: 30, high: 42 };
/** Goes on for so long after the planned failure. */
const afterS = 28;
/** Share of what two cells carry: one alone would need 120 % of its capacity. */
const loadOfTwo = 0.6;

const modes: Readonly<Record<Exclude<FaultName, 'look-alikes'>, { mode: FailureMode; service: DeployedService }>> = {
  'leak-to-death': { mode: 'memory-leak', service: 'sessions' },
  'cpu-saturation': { mode: 'cpu-saturation', service: 'sessions-under-quota' },
  'pool-exhaustion': { mode: 'pool-leak', service: 'gateway' },
  'disk-full': { mode: 'disk-fill', service: 'journal' },
  'slow-dependency': { mode: 'dependency-slow', service: 'gateway' },
  'cache-loss': { mode: 'cache-loss', service: 'lookup' },
  'gray-failure': { mode: 'gray-failure', service: 'sessions' },
  'abrupt-crash': { mode: 'abrupt-crash', service: 'sessions' },
};

/** One per seed, in turn: each resembles one of the faults above on the same service. */
const lookAlikeRound: readonly { event: LookAlike; service: DeployedService }[] = [
  { event: 'leak-that-stops', service: 'sessions' },
  { event: 'pool-burst', service: 'gateway' },
  { event: 'log-rotation', service: 'journal' },
  { event: 'load-peak', service: 'sessions' },
  { event: 'partial-cache-flush', service: 'lookup' },
  { event: 'dependency-step', service: 'gateway' },
  { event: 'batch-job', service: 'sessions-under-quota' },
  { event: 'trigger-that-recovers', service: 'sessions' },
];

type DeployedService = 'sessions' | 'sessions-under-quota' | 'gateway' | 'journal' | 'lookup';

function first(service: LabService): Variant {
  return variantsOf(service)[0]!;
}

/**
 * The lab's variant; what differs from it is said here. One instance a cell: a dozen cells stand on one machine, and what
 * they cost it idle must leave room for what is measured.
 */
function variantFor(service: DeployedService): Variant {
  switch (service) {
    case 'sessions':
      return { ...first('sessions'), cpuQuota: undefined, slots: 3, capacity: 37.5 };
    case 'sessions-under-quota':
      return { ...first('sessions'), slots: 3, capacity: 37.5 };
    case 'gateway':
      // The one whose pool is wide enough to be used up little by little.
      return { ...variantsOf('gateway')[2]!, cpuQuota: undefined };
    case 'journal':
      return { ...first('journal'), cpuQuota: undefined, slots: 3, capacity: 42 };
    case 'lookup': {
      // The lab's is bounded by its store alone; here a cell is bounded by its slots, and without a cache by its store.
      const store = { slots: 1, serviceMs: 80 };
      const nominalP99Ms = 15 + 2.5 * 50 + 3 * store.serviceMs;
      const knobs = { cacheItems: 1000, preloaded: 1 };
      const own = { slots: 3, serviceMs: 50, store, knobs, capacity: 42 };
      return { ...first('lookup'), cpuQuota: undefined, ...own, nominalP99Ms, sloMs: 5 * nominalP99Ms };
    }
  }
}

export function deploymentOf(service: DeployedService): Deployment {
  const variant = variantFor(service);
  return { variant, cellCapacity: variant.capacity, ratePerSecond: Math.round(2 * loadOfTwo * variant.capacity) };
}

/** The same for the same fault and seed: what happens, when, and to what. */
export function caseOf(fault: FaultName, seed: number): Case {
  const random = seededRandom(1000 * seed + 7 * faultNames.indexOf(fault) + 1);
  for (let i = 0; i < 8; i++) random();
  const leadS = Math.round(expectedS.low + (expectedS.high - expectedS.low) * random());
  const failureAtS = baselineS + leadS;
  const endS = failureAtS + afterS;
  if (fault === 'look-alikes') {
    const { event, service } = lookAlikeRound[(seed - 1) % lookAlikeRound.length]!;
    const deployment = deploymentOf(service);
    if (!lookAlikesOf(deployment.variant).includes(event)) throw new Error(`${service} cannot have ${event}`);
    const planned = planLookAlike(event, baselineS, contextOf(deployment, random));
    return {
      fault,
      seed,
      event,
      predictable: false,
      mechanism: `${event} (${service})`,
      deployment,
      orders: planned.orders,
      faultAtS: baselineS,
      failureAtS: null,
      endS,
    };
  }
  const { mode, service } = modes[fault];
  const deployment = deploymentOf(service);
  const wish = { mode, startS: baselineS, expectedS: leadS, sudden: false, shape: pick(random, faultShapes) };
  const planned = planFault(wish, contextOf(deployment, random));
  if (!planned) throw new Error(`${service} cannot have ${mode}`);
  // What has no growth comes when others have grown up: foresight is to have its time.
  const laterS = planned.shape === 'step' ? leadS : 0;
  return {
    fault,
    seed,
    event: mode,
    predictable: planned.predictable,
    mechanism: `${planned.mechanism}, ${planned.shape}`,
    deployment,
    orders: planned.orders.map((order) => ({ ...order, atS: order.atS + laterS })),
    faultAtS: baselineS + laterS,
    failureAtS,
    endS,
  };
}

function contextOf({ variant, ratePerSecond }: Deployment, random: () => number): CatalogueContext {
  return { variant, rate: ratePerSecond / 2, loadAt: () => 1, random };
}

/** What callers ask for, at random; for the cache few keys most of the time, so that a fifth of them answers four in five. */
export function pathsOf({ variant }: Deployment, seed: number): string[] {
  const random = seededRandom(seed + 99);
  if (variant.service !== 'lookup')
    return Array.from({ length: 2000 }, () => `/work?key=${Math.floor(1e6 * random())}`);
  const keys = variant.knobs['keys'] ?? 5000;
  return Array.from({ length: 20_000 }, () => `/work?key=${Math.floor(keys * random() ** 8)}`);
}
