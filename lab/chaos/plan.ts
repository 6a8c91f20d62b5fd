/** What an episode does, chosen by seed and number alone, so that a recording can be repeated and resumed. */
import { metricNames, type MetricName } from '../../prediction/metrics';
import { labServices, type LabService } from '../contract';
import { logUniform, pick, seededRandom } from '../random';
import {
  failureModes,
  lookAlikesOf,
  mechanismsOf,
  planFault,
  planLookAlike,
  takesCapacity,
  type CatalogueContext,
  type FailureMode,
  type OrderKind,
  type PlannedEvent,
  type PlannedFault,
} from './catalogue';
import { rateAt, type LoadPlan } from './load-plan';
import { serviceKinds, variantsOf, type Variant } from './services';
import { faultShapes } from './shapes';

export interface TelemetryGap {
  /** `outage`: everything is lost, and the cell is well. `metrics`: some metrics are. */
  kind: 'outage' | 'metrics';
  fromS: number;
  toS: number;
  /** Empty for an outage. */
  metrics: MetricName[];
}

export interface CellPlan {
  name: string;
  load: LoadPlan;
  /** At most two, overlapping; empty for a healthy cell. */
  faults: PlannedFault[];
  lookAlikes: PlannedEvent[];
  gaps: TelemetryGap[];
  /** Callers reach it through the lab's proxy, and its round trip is measured. */
  proxied: boolean;
  /** Its telemetry is this much late against the step's boundary: what this producer always adds. */
  jitterMs: number;
}

export interface EpisodePlan {
  number: number;
  seed: number;
  /** Name of the deployment: the service of its telemetry. */
  deployment: string;
  variant: Variant;
  stepMs: number;
  /** Telemetry and measurements count from here on, in seconds after the load began. */
  settleS: number;
  durationS: number;
  /** The episode goes on for so long after a failure was seen. */
  afterOnsetS: number;
  callers: { retries: number; timeoutMs: number };
  cells: CellPlan[];
}

/** How often a mode is chosen; two in nine faults give no warning, as in the field. */
const modeWeights: Readonly<Record<FailureMode, number>> = {
  'memory-leak': 5,
  'cpu-saturation': 3,
  'noisy-neighbour': 2,
  'pool-leak': 3,
  'fd-exhaustion': 3,
  'disk-fill': 3,
  'disk-slow': 2,
  'network-creep': 3,
  'dependency-slow': 3,
  'retry-storm': 2,
  'gray-failure': 3,
  'bad-release': 6,
  'cache-loss': 2,
  'queue-backlog': 3,
  'abrupt-crash': 6,
};
/** Beside the faulty cells stand healthy ones, and faults begin late: most of the time is healthy all the same. */
const faultyOfTen = 7;

/** Of bad releases; the others burn slowly. */
const suddenShare = 0.75;

const modeRound = failureModes.flatMap((mode) => Array<FailureMode>(modeWeights[mode]).fill(mode));
const serviceRound = labServices.flatMap((s) => Array<LabService>(serviceKinds[s].weight).fill(s));

type Random = () => number;

/** `quick`: many failures in an hour, most of them soon after a start. `slow`: cells with a past, faults that take their time. */
export type Pace = 'quick' | 'slow';
export const paces: readonly Pace[] = ['quick', 'slow'];

interface PaceOfEpisodes {
  /** Earliest start of a fault, and within how many seconds after it. */
  startS: { from: number; within: number };
  /** Planned time from a fault to its failure, drawn evenly in the logarithm. */
  expectedS: { low: number; high: number };
  longestS: number;
  healthyS: { from: number; within: number };
}

const paceOf: Readonly<Record<Pace, PaceOfEpisodes>> = {
  quick: {
    startS: { from: 10, within: 35 },
    expectedS: { low: 7, high: 150 },
    longestS: 260,
    healthyS: { from: 60, within: 100 },
  },
  slow: {
    startS: { from: 45, within: 75 },
    expectedS: { low: 20, high: 240 },
    longestS: 500,
    healthyS: { from: 200, within: 200 },
  },
};

/** Walks through a round of choices so that any stretch of numbers is balanced: a fixed stride, a start chosen by the seed. */
function turnOf<T>(round: readonly T[], turn: number, seed: number, stride: number): T {
  const index = (turn * stride + seed * 13) % round.length;
  return round[index]!;
}

/** Coprime to the length of the round, and far enough that neighbours differ. */
const modeStride = 20;
const serviceStride = 10;

function planLoad(random: Random, variant: Variant): LoadPlan {
  return {
    shape: variant.loadShape,
    mean: Number((variant.capacity * variant.loadLevel * (0.85 + 0.3 * random())).toPrecision(4)),
    swing: variant.loadShape === 'steady' ? 0 : 0.15 + 0.2 * random(),
    periodS: 30 + 90 * random(),
    phase: random(),
  };
}

const kindsOf = (events: readonly PlannedEvent[]): Set<OrderKind> =>
  new Set(events.flatMap(({ orders }) => orders.map(({ kind }) => kind)));

const overlap = (a: PlannedEvent, b: PlannedEvent): boolean =>
  a.startS < (b.endS ?? Infinity) + 5 && b.startS < (a.endS ?? Infinity) + 5;

function planLookAlikes(random: Random, context: CatalogueContext, faults: PlannedFault[], durationS: number) {
  const count = pick(random, [0, 1, 1, 2, 2, 2, 3, 3]);
  const events: PlannedEvent[] = [];
  const possible = lookAlikesOf(context.variant);
  for (let tries = 0; events.length < count && tries < 20; tries++) {
    const event = planLookAlike(pick(random, possible), 6 + random() * Math.max(1, durationS - 12), context);
    const [kind] = kindsOf([event]);
    // One mechanism serves one master: ending the look-alike would end the fault, too.
    if (!kind || kindsOf([...faults, ...events]).has(kind)) continue;
    const besideFault = faults.some((fault) => overlap(fault, event));
    if (event.name === 'rolling-restart' && (besideFault || events.some((e) => overlap(e, event)))) continue;
    if (events.some((e) => overlap(e, event) && e.name === 'rolling-restart')) continue;
    const takes = (e: PlannedEvent): boolean => (takesCapacity as ReadonlySet<string>).has(e.name);
    if (takes(event) && events.some((e) => takes(e) && overlap(e, event))) continue;
    if (takes(event) && faults.some((f) => f.name === 'retry-storm' && overlap(f, event))) continue;
    events.push(event);
  }
  return events.sort((a, b) => a.startS - b.startS);
}

function planGaps(random: Random, durationS: number, isFaulty: boolean): TelemetryGap[] {
  const gaps: TelemetryGap[] = [];
  if (random() < (isFaulty ? 0.1 : 0.14)) {
    const fromS = 6 + random() * Math.max(1, durationS - 10);
    gaps.push({ kind: 'outage', fromS, toS: fromS + logUniform(random, 5, 60), metrics: [] });
  }
  if (random() < 0.22) {
    const share = 0.1 + 0.3 * random();
    const whole = random() < 0.4;
    const fromS = whole ? 0 : random() * durationS;
    gaps.push({
      kind: 'metrics',
      fromS,
      toS: whole ? Infinity : fromS + logUniform(random, 3, 60),
      metrics: metricNames.filter(() => random() < share),
    });
  }
  return gaps;
}

function chooseVariant(random: Random, mode: FailureMode | undefined, turn: number, seed: number): Variant {
  if (mode === undefined) {
    return pick(random, variantsOf(turnOf(serviceRound, turn, seed, serviceStride)));
  }
  const able = serviceRound.filter((s) => variantsOf(s).some((v) => mechanismsOf(mode, v).length > 0));
  const service = pick(random, able);
  return pick(
    random,
    variantsOf(service).filter((v) => mechanismsOf(mode, v).length > 0),
  );
}

const second = (value: number): number => Math.round(value * 100) / 100;

/** Draws an overlapping second fault that the variant can have, of another mechanism; undefined if none comes up. */
function planSecondFault(random: Random, first: PlannedFault, context: CatalogueContext): PlannedFault | undefined {
  for (let tries = 0; tries < 10; tries++) {
    const mode = turnOf(modeRound, Math.floor(random() * modeRound.length), 0, 1);
    if (mode === first.name || mode === 'retry-storm' || mode === 'abrupt-crash') continue;
    const startS = second(first.startS + 0.6 * first.expectedS * random());
    const expectedS = second(logUniform(random, 8, 200));
    const wish = { mode, startS, expectedS, sudden: false, shape: pick(random, faultShapes) };
    const fault = planFault(wish, context);
    const taken = kindsOf([first]);
    if (fault && ![...kindsOf([fault])].some((kind) => taken.has(kind))) return fault;
  }
  return undefined;
}

export function planEpisode(recordingSeed: number, number: number, paceName: Pace = 'quick'): EpisodePlan {
  const pace = paceOf[paceName];
  const seed = (recordingSeed * 100_003 + number * 7919) >>> 0;
  const random = seededRandom(seed);
  // The first numbers of a generator with neighbouring seeds resemble each other.
  for (let i = 0; i < 8; i++) random();
  // Seven of ten episodes have a fault; each kind counts its own turns, so that modes and services come round evenly.
  const place = (3 * number + recordingSeed) % 10;
  const isFaulty = place < faultyOfTen;
  const turn = Math.floor(number / 10) * (isFaulty ? faultyOfTen : 10 - faultyOfTen) + (place % faultyOfTen);
  const mode = isFaulty ? turnOf(modeRound, turn, recordingSeed, modeStride) : undefined;
  const variant = chooseVariant(random, mode, turn, recordingSeed);
  const cellCount = pick(random, [1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4]);
  const faultyCell = mode === undefined ? -1 : Math.floor(random() * cellCount);
  const startS = second(pace.startS.from + pace.startS.within * random());
  const expectedS = second(logUniform(random, pace.expectedS.low, pace.expectedS.high));
  const loads = Array.from({ length: cellCount }, () => planLoad(random, variant));
  const contextOf = (load: LoadPlan): CatalogueContext => ({
    variant,
    loadAt: (atS) => rateAt(load, atS) / load.mean,
    rate: load.mean,
    random,
  });

  let faults: PlannedFault[] = [];
  const faultyLoad = loads[faultyCell];
  if (mode !== undefined && faultyLoad) {
    const context = contextOf(faultyLoad);
    const wish = { mode, startS, expectedS, sudden: random() < suddenShare, shape: pick(random, faultShapes) };
    const fault = planFault(wish, context);
    const second =
      fault && fault.expectedS > 0 && random() < 0.11 ? planSecondFault(random, fault, context) : undefined;
    faults = [...(fault ? [fault] : []), ...(second ? [second] : [])];
  }
  const expectedEndS = Math.max(0, ...faults.map((f) => f.startS + 1.7 * f.expectedS + 15));
  const durationS = second(
    faults.length > 0
      ? Math.max(50, Math.min(pace.longestS, expectedEndS))
      : pace.healthyS.from + pace.healthyS.within * random(),
  );
  const proxied = mode === 'network-creep' || random() < 0.35;
  const storm = mode === 'retry-storm';
  const repeating = storm || random() < 0.15;

  const cells = loads.map((load, index): CellPlan => {
    const own = index === faultyCell ? faults : [];
    const context = contextOf(load);
    const lookAlikes = planLookAlikes(random, context, own, durationS).filter(
      (event) => proxied || event.name !== 'farther-clients',
    );
    const jitterMs = Math.round(150 * random());
    const gaps = planGaps(random, durationS, own.length > 0);
    return { name: `c${recordingSeed}-${number}-${index + 1}`, load, faults: own, lookAlikes, gaps, proxied, jitterMs };
  });
  return {
    number,
    seed,
    deployment: `${variant.id}-e${recordingSeed}-${number}`,
    variant,
    stepMs: random() < 0.7 ? 500 : 1000,
    settleS: 4,
    durationS,
    afterOnsetS: second(4 + 4 * random()),
    callers: {
      // Callers who mask errors would mask a failure of errors.
      retries: repeating && (storm || mode === undefined) ? 3 : 0,
      timeoutMs: storm ? Math.round(0.8 * variant.sloMs) : Math.max(1500, 2 * variant.sloMs),
    },
    cells,
  };
}
