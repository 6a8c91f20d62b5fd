/** The catalogue: every failure mode and every harmless look-alike, as orders to a cell at given times. */
import type { MetricName } from '../../prediction/metrics';
import type { InstanceFault, LabService } from '../contract';
import { pick } from '../random';
import { serviceKinds, type Variant } from './services';
import { accumulatingLevels, rampingLevels, type FaultShape, type Growth, type LevelAt } from './shapes';

export const failureModes = [
  'memory-leak',
  'cpu-saturation',
  'noisy-neighbour',
  'pool-leak',
  'fd-exhaustion',
  'disk-fill',
  'disk-slow',
  'network-creep',
  'dependency-slow',
  'retry-storm',
  'gray-failure',
  'bad-release',
  'cache-loss',
  'queue-backlog',
  'abrupt-crash',
] as const;
export type FailureMode = (typeof failureModes)[number];

export const lookAlikes = [
  'leak-that-stops',
  'load-peak',
  'batch-job',
  'mild-neighbour',
  'pool-burst',
  'connection-burst',
  'log-rotation',
  'backup-slowness',
  'farther-clients',
  'traffic-lull',
  'dependency-step',
  'trigger-that-recovers',
  'one-bad-client',
  'partial-cache-flush',
  'job-batch',
  'good-release',
  'rolling-restart',
] as const;
export type LookAlike = (typeof lookAlikes)[number];

/** What the runner itself does; everything else is ordered from the instance. */
export const runnerOrders = {
  'network-delay': 'milliseconds added to the round trip between callers and cell',
  'network-stall': 'share of the pieces of data, 0 to 1, that arrive about 200 ms late',
  'dependency-delay': 'milliseconds added to the round trip between cell and dependency',
  'dependency-stall': 'as network-stall, between cell and dependency',
  neighbour: 'cores that other processes under the same CPU quota want to use',
  load: 'factor on the load; 0 ends it',
  kill: 'SIGKILL',
  'rolling-restart': 'a new instance is started, then takes over, then the old one is stopped',
} as const;
export type RunnerOrder = keyof typeof runnerOrders;
export type OrderKind = InstanceFault | RunnerOrder;

export interface Order {
  /** Seconds after the load began. */
  atS: number;
  kind: OrderKind;
  level: number;
  release?: boolean;
}

export interface PlannedEvent {
  name: FailureMode | LookAlike;
  startS: number;
  /** When it is over; undefined for one that goes on to the end. */
  endS: number | undefined;
  orders: Order[];
}

export interface PlannedFault extends PlannedEvent {
  name: FailureMode;
  shape: FaultShape | 'step';
  /** What grows. */
  mechanism: OrderKind;
  /** Seconds until the failure is expected; a plan, not a measurement. */
  expectedS: number;
  /** Whether it gives any warning. */
  predictable: boolean;
  /** The metric that shows it first. */
  shownBy: MetricName;
}

export interface CatalogueContext {
  variant: Variant;
  /** Planned load of the cell relative to its mean, over time. */
  loadAt: (atS: number) => number;
  /** Mean requests per second. */
  rate: number;
  random: () => number;
}

const mib = 1024 * 1024;
/** CPU that the lightest request costs a service, and what it needs without any. */
const cpuSecondsPerRequest = 0.0012;
const idleCores = 0.008;
/** Cores that neighbours have to want before a cell beside them gets too little: far more than the quota they share. */
const neighboursThatStarve = 1.5;
/** At most so many requests find their key in a full cache. */
export const hitShareOfFullCache = 0.82;

/** What has to be added to bring the variant to its limits. Rough on purpose: the failure itself is measured. */
export function criticalLevels({
  variant,
  rate,
}: Pick<CatalogueContext, 'variant' | 'rate'>): Partial<Record<OrderKind, number>> {
  const { service, slots, serviceMs, sloMs, nominalP99Ms, knobs, pool, store } = variant;
  const kind = serviceKinds[service];
  const critical: Partial<Record<OrderKind, number>> = {};
  const spareMs = sloMs - nominalP99Ms;
  const bySlots = service === 'gateway' || service === 'lookup' || service === 'orders' ? (pool ?? slots) : slots;

  if (service === 'reports') critical['heap-leak'] = (variant.memoryLimitBytes ?? 64 * mib) - 20 * mib;
  else {
    const items = service === 'sessions' ? (knobs['items'] ?? 2000) * 60 * (knobs['basket'] ?? 6) : 0;
    critical['heap-leak'] = (variant.heapMib ?? 64) * mib * 0.85 - 9 * mib - items;
    if (variant.memoryLimitBytes !== undefined) critical['buffer-leak'] = variant.memoryLimitBytes - 45 * mib - items;
  }
  critical['fd-leak'] = variant.fdLimit - (service === 'reports' ? 12 : 28);
  if (variant.cpuQuota !== undefined) {
    const own = kind.cpuBound ? (rate * (serviceMs + 1)) / 1000 : rate * cpuSecondsPerRequest + idleCores;
    critical['cpu-burn'] = Math.max(0.02, variant.cpuQuota - own);
    critical.neighbour = critical['cpu-burn'];
  }
  // Latency grows with the factor, and the slots are all taken at the inverse of the load.
  const share = rate / variant.capacity;
  const ownP99Ms = 2.1 * serviceMs;
  const byLatency = 1 + (sloMs - nominalP99Ms) / ownP99Ms;
  const waitsInSlots = service !== 'gateway' && service !== 'lookup';
  critical['slow-code'] = waitsInSlots ? Math.min(1.05 / share, byLatency) : byLatency;
  critical['gray-error'] = 0.07;
  critical['gray-slow'] = 0.08;
  critical['bad-release'] = 0.07;
  critical['network-delay'] = spareMs;
  if (kind.dependency === 'postgres') {
    critical['dependency-delay'] = Math.min(spareMs / 2, ((1000 * bySlots) / rate - serviceMs) / 2);
  }
  if (kind.dependency === 'downstream') {
    const timeoutMs = knobs['timeoutMs'] ?? 800;
    const p99Ms = 2.2 * (store?.serviceMs ?? 50);
    critical['dependency-delay'] = Math.min(
      spareMs,
      (1000 * bySlots) / rate - (store?.serviceMs ?? 50),
      Math.max(100, timeoutMs - p99Ms),
    );
  }
  if (kind.dependency === 'store') critical['dependency-delay'] = spareMs;
  if (kind.dependency === 'kafka') critical['dependency-delay'] = spareMs / 3;
  if (kind.ownFaults.includes('pool-leak') && pool !== undefined) {
    const holdMs = service === 'orders' ? serviceMs + 5 : (store?.serviceMs ?? 50);
    critical['pool-leak'] = Math.max(1, pool - (rate * holdMs) / 1000 - 0.5);
  }
  if (variant.diskBytes !== undefined) {
    critical['disk-fill'] = variant.diskBytes - (knobs['keepBytes'] ?? 4 * mib) - 0.5 * mib;
    const bursts = 0.3;
    critical['disk-slow'] = Math.min((bursts * spareMs) / 2500, bursts * (slots / rate - serviceMs / 1000) * 1.3);
  }
  if (service === 'lookup' && store) {
    const storeRate = (1000 * store.slots) / store.serviceMs;
    const bearable = Math.min(1, storeRate / rate);
    critical['cache-flush'] = Math.min(1, Math.max(0.1, 1 - (1 - bearable) / hitShareOfFullCache));
  }
  if (service === 'worker') critical['consumer-slow'] = 1.1 / share;
  return critical;
}

const mostLevel: Partial<Record<OrderKind, number>> = {
  'cpu-burn': 1,
  'gray-error': 1,
  'gray-slow': 1,
  'bad-release': 1,
  'cache-flush': 1,
  'network-stall': 0.6,
  'dependency-stall': 0.6,
  neighbour: 3,
};

const accumulating: ReadonlySet<OrderKind> = new Set(['heap-leak', 'buffer-leak', 'fd-leak', 'pool-leak', 'disk-fill']);
const factors: ReadonlySet<OrderKind> = new Set(['slow-code', 'consumer-slow', 'load']);

const ordersOf = (kind: OrderKind, levels: readonly LevelAt[]): Order[] =>
  levels.map(({ atS, level }) => ({ atS, kind, level: Number(level.toPrecision(4)) }));

/** A mechanism that grows until it breaks the cell. */
function growing(kind: OrderKind, growth: Growth, critical: number): Order[] {
  if (accumulating.has(kind)) return ordersOf(kind, accumulatingLevels(growth, critical));
  if (!factors.has(kind)) return ordersOf(kind, rampingLevels(growth, critical, mostLevel[kind] ?? 4 * critical));
  // A factor begins at 1, where it changes nothing.
  return ordersOf(
    kind,
    rampingLevels(growth, critical - 1, 5 * critical).map(({ atS, level }) => ({ atS, level: 1 + level })),
  );
}

/** The mechanisms by which a mode can come about in the variant; none: it cannot. */
export function mechanismsOf(mode: FailureMode, variant: Variant): OrderKind[] {
  const { service } = variant;
  const own = serviceKinds[service].ownFaults;
  const only = (condition: boolean, ...kinds: OrderKind[]): OrderKind[] => (condition ? kinds : []);
  switch (mode) {
    case 'memory-leak':
      return [
        'heap-leak',
        ...only(service !== 'reports' && variant.memoryLimitBytes !== undefined, 'buffer-leak', 'buffer-leak'),
      ];
    case 'cpu-saturation':
      if (variant.cpuQuota === undefined) return [];
      // A loop is felt where it blocks for longer than a request takes.
      return serviceKinds[service].cpuBound
        ? ['cpu-burn', 'slow-code', 'load']
        : only(variant.knobs['burnSliceMs'] !== undefined, 'cpu-burn');
    case 'noisy-neighbour':
      // Who needs little CPU gets it beside any neighbour, only later: objectives in seconds do not notice.
      return only(variant.cpuQuota !== undefined && serviceKinds[service].cpuBound, 'neighbour');
    case 'pool-leak':
      return only(own.includes('pool-leak'), 'pool-leak');
    case 'fd-exhaustion':
      return ['fd-leak'];
    case 'disk-fill':
      return only(own.includes('disk-fill'), 'disk-fill');
    case 'disk-slow':
      return only(own.includes('disk-slow'), 'disk-slow');
    case 'network-creep':
      return ['network-delay', 'network-stall'];
    case 'dependency-slow':
      return only(serviceKinds[service].dependency !== undefined, 'dependency-delay');
    case 'retry-storm':
      return only(['sessions', 'render', 'journal', 'reports', 'worker'].includes(service), 'load');
    case 'gray-failure':
      return ['gray-error', 'gray-slow'];
    case 'bad-release':
    case 'abrupt-crash':
      return [mode === 'abrupt-crash' ? 'kill' : 'bad-release'];
    case 'cache-loss':
      return only(service === 'lookup', 'cache-flush');
    case 'queue-backlog':
      return only(service === 'worker', 'consumer-slow');
  }
}

const shownBy: Readonly<Record<FailureMode, MetricName>> = {
  'memory-leak': 'heap.used_bytes',
  'cpu-saturation': 'cpu.utilization',
  'noisy-neighbour': 'cpu.throttled_share',
  'pool-leak': 'pool.used',
  'fd-exhaustion': 'fd.used',
  'disk-fill': 'disk.used_bytes',
  'disk-slow': 'disk.write_latency_s',
  'network-creep': 'network.rtt_s',
  'dependency-slow': 'dependency.latency_p99_s',
  'retry-storm': 'http.in_flight',
  'gray-failure': 'http.error_ratio',
  'bad-release': 'http.error_ratio',
  'cache-loss': 'cache.hit_ratio',
  'queue-backlog': 'queue.depth',
  'abrupt-crash': 'process.uptime_s',
};

export interface FaultWish {
  mode: FailureMode;
  startS: number;
  expectedS: number;
  /** Without precursors, for a mode that can be so. */
  sudden: boolean;
  shape: FaultShape;
}

/** The fault as orders, or undefined if the variant cannot have it. */
export function planFault(wish: FaultWish, context: CatalogueContext): PlannedFault | undefined {
  const { mode, startS, expectedS, shape } = wish;
  const { variant, random, loadAt, rate } = context;
  const mechanisms = mechanismsOf(mode, variant);
  if (mechanisms.length === 0) return undefined;
  const critical = criticalLevels(context);
  const growth: Growth = { startS, timeS: expectedS, untilS: startS + 2.2 * expectedS, shape, loadAt, random };
  const grow = (kind: OrderKind, share = 1): Order[] => growing(kind, growth, share * (critical[kind] ?? 1));
  const fault = (mechanism: OrderKind, orders: Order[], more: Partial<PlannedFault> = {}): PlannedFault => ({
    name: mode,
    startS,
    endS: undefined,
    orders,
    shape,
    mechanism,
    expectedS,
    predictable: true,
    shownBy: shownBy[mode],
    ...more,
  });

  switch (mode) {
    case 'abrupt-crash':
      return fault('kill', [{ atS: startS, kind: 'kill', level: 1 }], {
        shape: 'step',
        expectedS: 0,
        predictable: false,
      });
    case 'bad-release': {
      if (wish.sudden) {
        const level = Number((0.08 * Math.exp(random() * Math.log(10))).toPrecision(3));
        return fault('bad-release', [{ atS: startS, kind: 'bad-release', level }], {
          shape: 'step',
          expectedS: 0,
          predictable: false,
        });
      }
      // A release that burns slowly: hardly an error at first, and what it does wrong adds up.
      const slow = pick(random, ['gray-error', 'slow-code', 'heap-leak'] as const);
      return fault(slow, [{ atS: startS, kind: 'bad-release', level: 0.001 }, ...grow(slow)], {
        shownBy: slow === 'heap-leak' ? 'heap.used_bytes' : slow === 'slow-code' ? 'http.latency_p50_s' : shownBy[mode],
      });
    }
    case 'network-creep':
      return fault('network-delay', [
        ...growing('network-delay', growth, (critical['network-delay'] ?? 500) * (0.5 + 0.5 * random())),
        ...growing('network-stall', growth, 0.05 + 0.1 * random()),
      ]);
    case 'dependency-slow':
      return fault('dependency-delay', [
        ...grow('dependency-delay'),
        ...(random() < 0.4 ? growing('dependency-stall', growth, 0.06) : []),
      ]);
    case 'cache-loss':
      // The whole cache at once, as a restart of a cache does, or little by little.
      if (random() < 0.4) {
        const level = Math.min(1, (critical['cache-flush'] ?? 0.5) * (1 + random()));
        return fault('cache-flush', [{ atS: startS, kind: 'cache-flush', level }], { shape: 'step' });
      }
      return fault('cache-flush', grow('cache-flush'));
    case 'retry-storm': {
      // First the vulnerable state: a load that leaves little room, from callers who repeat. Then some trigger.
      const level = Number(((0.78 + 0.14 * random()) / (rate / variant.capacity)).toPrecision(3));
      const triggerS = startS + expectedS;
      const forS = 5 + 12 * random();
      const orders: Order[] = [
        { atS: startS, kind: 'load', level },
        { atS: triggerS, kind: 'slow-code', level: Number((1.4 + 0.8 * random()).toPrecision(3)) },
        { atS: triggerS + forS, kind: 'slow-code', level: 0 },
      ];
      return fault('load', orders, { shape: 'step' });
    }
    case 'cpu-saturation': {
      const mechanism = pick(random, mechanisms);
      if (mechanism === 'load') return fault(mechanism, growing('load', growth, (1.1 * variant.capacity) / rate));
      return fault(mechanism, grow(mechanism));
    }
    case 'noisy-neighbour':
      return fault('neighbour', growing('neighbour', growth, neighboursThatStarve));
    case 'memory-leak':
    case 'pool-leak':
    case 'fd-exhaustion':
    case 'disk-fill':
    case 'disk-slow':
    case 'gray-failure':
    case 'queue-backlog': {
      const mechanism = pick(random, mechanisms);
      const more: Partial<PlannedFault> = {};
      if (mechanism === 'buffer-leak' || variant.service === 'reports') {
        if (mode === 'memory-leak') more.shownBy = 'memory.used_bytes';
      }
      if (mechanism === 'gray-slow') more.shownBy = 'http.latency_p99_s';
      return fault(mechanism, grow(mechanism), more);
    }
  }
}

/** Look-alikes that the service can have. */
export function lookAlikesOf(variant: Variant): LookAlike[] {
  const { service } = variant;
  const own = serviceKinds[service].ownFaults;
  const impossible: Partial<Record<LookAlike, boolean>> = {
    'batch-job': variant.cpuQuota === undefined,
    'mild-neighbour': variant.cpuQuota === undefined,
    'pool-burst': !own.includes('pool-leak'),
    'log-rotation': !own.includes('disk-fill'),
    'backup-slowness': !own.includes('disk-slow'),
    'dependency-step': serviceKinds[service].dependency === undefined,
    'partial-cache-flush': service !== 'lookup',
    'job-batch': service !== 'worker',
    // Its topic and its consumer group belong to one process at a time.
    'rolling-restart': service === 'worker',
  };
  return lookAlikes.filter((name) => !impossible[name]);
}

/** Look-alikes that take from the same spare capacity: two of them at once would be a failure of its own making. */
export const takesCapacity: ReadonlySet<LookAlike> = new Set([
  'load-peak',
  'batch-job',
  'mild-neighbour',
  'pool-burst',
  'backup-slowness',
  'farther-clients',
  'dependency-step',
  'trigger-that-recovers',
  'partial-cache-flush',
  'job-batch',
  'rolling-restart',
]);

/** The look-alike as orders: the same mechanism as the fault it resembles, at a level that harms nobody. */
export function planLookAlike(name: LookAlike, startS: number, context: CatalogueContext): PlannedEvent {
  const { random, variant, rate, loadAt } = context;
  const critical = criticalLevels(context);
  const between = (low: number, high: number): number => low + (high - low) * random();
  const rounded = (value: number): number => Number(value.toPrecision(3));
  const of = (kind: OrderKind, share: number): number => rounded(share * (critical[kind] ?? 0));
  const event = (endS: number | undefined, ...orders: Order[]): PlannedEvent => ({ name, startS, endS, orders });
  /** A level that holds for a while and ends. */
  const forAWhile = (kind: OrderKind, level: number, forS: number): PlannedEvent =>
    event(startS + forS, { atS: startS, kind, level }, { atS: startS + forS, kind, level: 0 });
  /** Taken in a short time, kept, and given back or kept. */
  const taken = (kind: OrderKind, share: number, inS: number, keptS: number, givenBack: boolean): PlannedEvent =>
    event(
      startS + inS + keptS,
      { atS: startS, kind, level: rounded(((critical[kind] ?? 0) * share) / inS) },
      { atS: startS + inS, kind, level: 0 },
      ...(givenBack ? [{ atS: startS + inS + keptS, kind, level: 0, release: true }] : []),
    );
  /** A factor that leaves the slots at most this busy, at the highest planned load of the next minute. */
  const factorUpTo = (busy: number): number => {
    let highest = 0;
    for (let s = 0; s < 60; s += 2) highest = Math.max(highest, loadAt(startS + s));
    return Math.max(1.05, (busy * variant.capacity) / (rate * highest));
  };

  switch (name) {
    case 'leak-that-stops': {
      const kind: OrderKind = critical['buffer-leak'] !== undefined && random() < 0.5 ? 'buffer-leak' : 'heap-leak';
      return taken(kind, between(0.25, 0.72), between(8, 60), between(5, 30), random() < 0.4);
    }
    case 'load-peak':
      return forAWhile('load', rounded(Math.min(2.5, factorUpTo(between(0.55, 0.75)))), between(8, 40));
    case 'batch-job':
      return forAWhile('cpu-burn', of('cpu-burn', between(0.25, 0.6)), between(8, 40));
    case 'mild-neighbour':
      return forAWhile('neighbour', of('neighbour', between(0.25, 0.6)), between(8, 60));
    case 'pool-burst':
      return taken('pool-leak', between(0.25, 0.6), between(1, 4), between(4, 20), true);
    case 'connection-burst':
      return taken('fd-leak', between(0.25, 0.7), between(1, 8), between(5, 40), true);
    case 'log-rotation':
      return taken('disk-fill', between(0.25, 0.7), between(10, 60), between(0, 10), true);
    case 'backup-slowness':
      return forAWhile('disk-slow', of('disk-slow', between(0.1, 0.3)), between(4, 15));
    case 'farther-clients':
      return event(undefined, { atS: startS, kind: 'network-delay', level: of('network-delay', between(0.05, 0.3)) });
    case 'traffic-lull':
      return forAWhile('load', rounded(between(0.2, 0.6)), between(15, 60));
    case 'dependency-step':
      return forAWhile('dependency-delay', of('dependency-delay', between(0.08, 0.3)), between(10, 80));
    case 'trigger-that-recovers':
      return forAWhile('slow-code', rounded(Math.min(2, factorUpTo(between(0.6, 0.75)))), between(5, 12));
    case 'one-bad-client':
      return forAWhile('gray-error', rounded(between(0.003, 0.008)), between(20, 120));
    case 'partial-cache-flush':
      return forAWhile('cache-flush', of('cache-flush', between(0.2, 0.6)), between(4, 20));
    case 'job-batch':
      return forAWhile('consumer-slow', rounded(Math.min(2.5, factorUpTo(between(0.6, 0.8)))), between(8, 30));
    case 'good-release':
      return event(startS, { atS: startS, kind: 'bad-release', level: 1e-6 });
    case 'rolling-restart':
      return event(startS + 10, { atS: startS, kind: 'rolling-restart', level: 1 });
  }
}

/** Whether the service can be deployed on its own, without servers that the recording starts. */
export const needsServer = (service: LabService): 'postgres' | 'kafka' | undefined => {
  const { dependency } = serviceKinds[service];
  return dependency === 'postgres' || dependency === 'kafka' ? dependency : undefined;
};
