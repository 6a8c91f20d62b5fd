/** What a recorded episode does: chosen by seed and number alone, so that a recording can be repeated and resumed. */
import { leakShapes, type LeakOrder } from './heap-leak';
import { logUniform, pick, seededRandom } from './random';

export type EpisodeKind = 'leak-to-death' | 'leak-that-stops' | 'healthy';
export type LoadShape = 'constant' | 'step' | 'burst' | 'ramp';

export interface PlannedLeakOrder extends LeakOrder {
  /** Seconds after the load began. */
  atS: number;
  /** 0 or 1. */
  instance: number;
}

export interface EpisodePlan {
  number: number;
  seed: number;
  cell: string;
  kind: EpisodeKind;
  heapLimitMib: number;
  items: number;
  /** False: the cell starts with nothing in memory and fills its cache under load, a look-alike of a leak. */
  preloaded: boolean;
  serviceMs: number;
  /** Extra wait for an item that is not in memory. */
  coldMs: number;
  /** What two instances of two slots carry, in requests per second. */
  capacity: number;
  load: { shape: LoadShape; from: number; to: number; fromS: number; toS: number };
  leakOrders: PlannedLeakOrder[];
  /** The episode ends at this time or a few seconds after a death, whichever comes first. */
  durationS: number;
}

/** Measured on Node 20: an instance's own heap, what an item adds, and the share of the limit at which V8 gives up. */
const ownHeapBytes = 11 * 1024 * 1024;
const itemBytes = 330;
const deadlyShare = 0.82;
const instances = 2;
const slotsPerInstance = 2;

type Random = () => number;

function planLoad(random: Random, durationS: number, capacity: number, preloaded: boolean): EpisodePlan['load'] {
  // A cold cell needs its slots twice as long per request: it gets half the load.
  const level = (): number => Math.round(100 * capacity * (0.2 + 0.45 * random()) * (preloaded ? 1 : 0.5)) / 100;
  const shape = pick<LoadShape>(random, ['constant', 'constant', 'step', 'burst', 'ramp']);
  const from = level();
  const to = shape === 'constant' ? from : level();
  const fromS = durationS * (0.25 + 0.4 * random());
  return { shape, from, to, fromS, toS: fromS + (shape === 'burst' ? 8 + 12 * random() : 20 + 20 * random()) };
}

/** The planned arrival rate at a time, in requests per second. */
export function rateAt({ shape, from, to, fromS, toS }: EpisodePlan['load'], atS: number): number {
  if (atS < fromS) return from;
  if (shape === 'burst') return atS < toS ? to : from;
  if (shape === 'ramp') return from + (to - from) * Math.min(1, (atS - fromS) / (toS - fromS));
  return to;
}

function planLeak(random: Random, kind: EpisodeKind, roomBytes: number): { orders: PlannedLeakOrder[]; endS: number } {
  const startS = 8 + 20 * random();
  const shape = pick(random, leakShapes);
  const timeToDeathS = logUniform(random, 12, 170);
  const bytesPerSecond = Math.round(roomBytes / timeToDeathS);
  const affected = random() < 0.3 ? [0, 1] : [random() < 0.5 ? 0 : 1];
  const order = (atS: number, rate: number, release = false): PlannedLeakOrder[] =>
    affected.map((instance) => ({ atS, instance, bytesPerSecond: rate, shape, release }));

  if (kind === 'leak-to-death') {
    // One in five pauses on the way and goes on: a pause is not the end of the danger.
    if (random() < 0.2) {
      const pauseS = startS + timeToDeathS * (0.3 + 0.4 * random());
      const pauseForS = 6 + 9 * random();
      const orders = [
        ...order(startS, bytesPerSecond),
        ...order(pauseS, 0),
        ...order(pauseS + pauseForS, bytesPerSecond),
      ];
      return { orders, endS: Math.min(200, startS + pauseForS + timeToDeathS * 1.4 + 5) };
    }
    return { orders: order(startS, bytesPerSecond), endS: Math.min(190, startS + timeToDeathS * 1.4 + 5) };
  }
  const fill = 0.25 + 0.6 * random();
  // A slow leak is stopped after at most 45 s, to keep episodes short; it has then filled less.
  const stopS = startS + Math.min(45, timeToDeathS * fill);
  return {
    orders: [...order(startS, bytesPerSecond), ...order(stopS, 0, random() < 0.4)],
    endS: stopS + 22 + 18 * random(),
  };
}

export function planEpisode(recordingSeed: number, number: number): EpisodePlan {
  const seed = (recordingSeed * 100_003 + number * 7919) >>> 0;
  const random = seededRandom(seed);
  // The mix is fixed by number, so that any prefix of a recording is balanced.
  const kind = pick<EpisodeKind>(
    () => (number % 20) / 20,
    [
      ...Array<EpisodeKind>(9).fill('leak-to-death'),
      ...Array<EpisodeKind>(6).fill('leak-that-stops'),
      ...Array<EpisodeKind>(5).fill('healthy'),
    ],
  );
  const heapLimitMib = pick(random, [48, 64, 64, 96, 128]);
  const serviceMs = pick(random, [30, 40, 40, 60]);
  const capacity = (instances * slotsPerInstance * 1000) / serviceMs;
  const preloaded = random() < 0.85;
  // Large catalogues make healthy cells that hold much memory and do not grow.
  const items = preloaded ? pick(random, [500, 2000, 2000, 20_000, 50_000]) : pick(random, [500, 2000]);
  const roomBytes = heapLimitMib * 1024 * 1024 * deadlyShare - ownHeapBytes - items * itemBytes;
  const leak = kind === 'healthy' ? { orders: [], endS: 60 + 110 * random() } : planLeak(random, kind, roomBytes);
  return {
    number,
    seed,
    cell: `lab-${recordingSeed}-${number}`,
    kind,
    heapLimitMib,
    items,
    preloaded,
    serviceMs,
    coldMs: serviceMs,
    capacity,
    load: planLoad(random, leak.endS, capacity, preloaded),
    leakOrders: leak.orders,
    durationS: leak.endS,
  };
}
