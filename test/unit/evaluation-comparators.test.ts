/** The comparators: each finds what it is known to find, none looks ahead, and gaps in the telemetry stop none of them. */
import { expect } from 'chai';
import * as fc from 'fast-check';
import { allComparators, orOf } from '../../models/evaluation/comparators';
import { anomalyBands } from '../../models/evaluation/comparators/anomaly-band';
import { clusterDistances } from '../../models/evaluation/comparators/cluster-distance';
import { forecastBands } from '../../models/evaluation/comparators/forecast-band';
import { isolationForests } from '../../models/evaluation/comparators/isolation-forest';
import { pcas } from '../../models/evaluation/comparators/pca';
import { peerOutliers } from '../../models/evaluation/comparators/peer-outlier';
import { predictLinear } from '../../models/evaluation/comparators/predict-linear';
import { RollingTrend, sustained, trailingMedian } from '../../models/evaluation/comparators/rolling';
import { staticThresholds } from '../../models/evaluation/comparators/static-thresholds';
import { symmetricEigen } from '../../models/evaluation/comparators/symmetric-eigen';
import { surprise, tailProbabilities } from '../../models/evaluation/comparators/tail-probability';
import { threeSigma } from '../../models/evaluation/comparators/three-sigma';
import type { CellSeries, Detector } from '../../models/evaluation/contracts';
import { metrics, type MetricName } from '../../prediction/metrics';

type Course = Partial<Record<MetricName, (tick: number) => number>>;

const t0 = 1_795_328_800_000;
const stepMs = 1000;

/** Deterministic noise in [-1, 1), nearly independent between ticks and streams. */
function noise(tick: number, stream = 0): number {
  let x = Math.imul(tick + 1, 0x9e3779b1) ^ Math.imul(stream + 1, 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 15), 0x2c1b3c6d);
  x = Math.imul(x ^ (x >>> 12), 0x297a2d39);
  return ((x ^ (x >>> 15)) >>> 0) / 2 ** 31 - 1;
}

function cellOf(ticks: number, course: Course, more: Partial<CellSeries> = {}): CellSeries {
  const values = new Map<MetricName, Float64Array>();
  for (const [metric, at] of Object.entries(course) as [MetricName, (tick: number) => number][]) {
    values.set(
      metric,
      Float64Array.from({ length: ticks }, (_, tick) => at(tick)),
    );
  }
  const rest = { cell: 'a', service: 'shop', stepMs, startMs: t0, ticks, values, sloLatencyS: NaN, incidents: [] };
  return { ...rest, ...more };
}

const memory = (share: (tick: number) => number): Course => ({
  'memory.used_bytes': (tick) => share(tick) * 2 ** 26,
  'memory.limit_bytes': () => 2 ** 26,
});

const healthy = (stream: number): Course => ({
  'cpu.utilization': (t) => 0.4 + 0.05 * noise(t, stream),
  'memory.used_bytes': (t) => 3e7 + 1e6 * noise(t, stream + 1),
  'memory.limit_bytes': () => 6.4e7,
  'http.request_rate': (t) => 100 + 5 * noise(t, stream + 2),
  'http.error_ratio': () => 0,
  'http.latency_p99_s': (t) => 0.04 + 0.004 * noise(t, stream + 3),
  'fd.used': (t) => 40 + Math.round(2 * noise(t, stream + 4)),
  'fd.limit': () => 256,
});

/** The first tick at which a detector's score reaches the threshold; -1 if it never does. */
const firstAt = (scores: Float32Array, threshold: number) => scores.findIndex((score) => score >= threshold);

function named(detectors: readonly Detector[], name: string): Detector {
  const found = detectors.find((detector) => detector.name === name);
  if (!found) throw new Error(`no ${name} among ${detectors.map((detector) => detector.name).join('; ')}`);
  return found;
}

const greatest = (scores: Float32Array, from = 0, to = scores.length) =>
  scores.slice(from, to).reduce((most, score) => (score > most ? score : most), -Infinity);

describe('Comparators', () => {
  it('come with the whole grid of each family, each member under a name of its own', () => {
    const all = allComparators();
    expect(new Set(all.map(({ name }) => name)).size).to.equal(all.length);
    expect([...new Set(all.map(({ family }) => family))]).to.deep.equal([
      'static-thresholds',
      'predict-linear',
      'three-sigma',
      'forecast-band',
      'anomaly-band',
      'peer-outlier',
      'cluster-distance',
      'tail-probability',
      'isolation-forest',
      'pca',
    ]);
    for (const { name, family } of all) expect(name.startsWith(family), name).to.equal(true);
  });

  describe('static thresholds', () => {
    it('reach 1 at 90 % of a limit, and at the n-th tick in a row with `for`', () => {
      const cell = cellOf(
        100,
        memory((t) => (t < 50 ? 0.5 : 0.95)),
      );
      expect(firstAt(named(staticThresholds(), 'static-thresholds all for 1').score(cell, []), 1)).to.equal(50);
      expect(firstAt(named(staticThresholds(), 'static-thresholds all for 5').score(cell, []), 1)).to.equal(54);
    });

    it('hold latency against the declared objective, or else against five times the usual one', () => {
      const p99: Course = { 'http.latency_p99_s': (t) => (t < 60 ? 0.04 : 0.21) };
      const symptoms = named(staticThresholds(), 'static-thresholds symptoms for 1');
      expect(firstAt(symptoms.score(cellOf(100, p99), []), 1)).to.equal(60);
      expect(symptoms.score(cellOf(100, p99), [])[20]).to.be.NaN;
      expect(firstAt(symptoms.score(cellOf(100, p99, { sloLatencyS: 0.02 }), []), 1)).to.equal(0);
      expect(firstAt(symptoms.score(cellOf(100, p99, { sloLatencyS: 0.3 }), []), 1)).to.equal(-1);
    });
  });

  describe('predict_linear', () => {
    const ramp = cellOf(
      512,
      memory((t) => 0.5 + t / 1024),
    );
    it('foretells a straight ramp exactly one horizon before it is at the limit', () => {
      const scores = named(predictLinear(), 'predict-linear space 60/240 for 1').score(ramp, []);
      expect(firstAt(scores, 1 - 1e-6)).to.equal(512 - 240);
    });

    it('says nothing below the level floor, and needs the rule to hold for its time', () => {
      const long = named(predictLinear(), 'predict-linear space 240/960 for 1').score(ramp, []);
      const floored = named(predictLinear(), 'predict-linear space 240/960 above 60 % for 1').score(ramp, []);
      const patient = named(predictLinear(), 'predict-linear space 240/960 above 60 % for 10').score(ramp, []);
      expect(firstAt(long, 1 - 1e-6)).to.equal(59);
      expect(firstAt(floored, 1 - 1e-6)).to.equal(103);
      expect(firstAt(patient, 1 - 1e-6)).to.equal(112);
    });

    it('fits the same line as a fit over all points of the window, gaps and long series included', () => {
      const trend = new RollingTrend(30);
      const values = Array.from({ length: 3000 }, (_, t) => (t % 7 === 3 ? NaN : 0.3 + t * 1e-5 + 0.1 * noise(t)));
      for (const [t, value] of values.entries()) {
        trend.push(value);
        if (t < 40 || t % 97 !== 0) continue;
        const points = values.slice(t - 29, t + 1).flatMap((y, i) => (y === y ? [[i - 29, y] as const] : []));
        const meanX = points.reduce((sum, [x]) => sum + x, 0) / points.length;
        const meanY = points.reduce((sum, [, y]) => sum + y, 0) / points.length;
        const sxy = points.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0);
        const sxx = points.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0);
        expect(trend.slope).to.be.closeTo(sxy / sxx, 1e-12);
        expect(trend.at(0)).to.be.closeTo(meanY - (sxy / sxx) * meanX, 1e-10);
      }
    });
  });

  describe('three sigma', () => {
    const spike: Course = {
      'http.request_rate': (t) => 100 + 10 * noise(t),
      'http.in_flight': (t) => 50 + 10 * noise(t, 1) + (t === 300 ? 100 : 0),
    };
    it('sees a spike of one metric at its tick, and k = 2 does not', () => {
      const cell = cellOf(400, spike);
      const one = named(threeSigma(), 'three-sigma memory 120 weight 1 k 1').score(cell, []);
      const two = named(threeSigma(), 'three-sigma memory 120 weight 1 k 2').score(cell, []);
      expect(firstAt(one.subarray(120), 6)).to.equal(180);
      expect(one[300]).to.be.greaterThan(10);
      expect(greatest(two, 120)).to.be.lessThan(3);
    });

    it('as an EWMA sees a small shift that a single value does not show', () => {
      const shift: Course = { 'http.request_rate': (t) => 100 + 10 * noise(t) + (t >= 300 ? 8 : 0) };
      const cell = cellOf(400, shift);
      const chart = named(threeSigma(), 'three-sigma memory 480 weight 1 k 1').score(cell, []);
      const ewma = named(threeSigma(), 'three-sigma memory 480 weight 0.2 k 1').score(cell, []);
      expect(greatest(ewma, 300, 330) / greatest(ewma, 100, 300)).to.be.greaterThan(1.3);
      expect(greatest(ewma, 300, 330)).to.be.greaterThan(greatest(chart, 300, 330));
    });
  });

  describe('forecast band', () => {
    it('is the line itself without noise, and its edge crosses earlier with noise', () => {
      const line = cellOf(
        512,
        memory((t) => 0.5 + t / 1024),
      );
      const noisy = cellOf(
        512,
        memory((t) => 0.5 + t / 1024 + 0.02 * noise(t)),
      );
      const band = named(forecastBands(), 'forecast-band linear space 120/120 bounds 3');
      expect(firstAt(band.score(line, []), 1 - 1e-6)).to.equal(512 - 120);
      expect(firstAt(band.score(noisy, []), 1)).to.be.within(300, 380);
    });

    it("by Holt's method follows a ramp to its slope", () => {
      const line = cellOf(
        1024,
        memory((t) => t / 1024),
      );
      const holt = named(forecastBands(), 'forecast-band holt space 60/120 bounds 2').score(line, []);
      expect(firstAt(holt, 1)).to.be.within(1024 - 140, 1024 - 110);
    });
  });

  describe('anomaly band', () => {
    it('ignores one spike if asked for most of a span, and sees what lasts', () => {
      const at = (from: number, to: number): Course => ({
        'http.request_rate': (t) => 100 + 5 * noise(t) + (t >= from && t < to ? 60 : 0),
      });
      const lasting = named(anomalyBands(), 'anomaly-band window 240 span 15 k 1');
      const instant = named(anomalyBands(), 'anomaly-band window 240 span 1 k 1');
      expect(greatest(lasting.score(cellOf(400, at(300, 301)), []), 100)).to.be.lessThan(3);
      expect(firstAt(instant.score(cellOf(400, at(300, 301)), []), 10)).to.equal(300);
      expect(firstAt(lasting.score(cellOf(400, at(300, 330)), []), 10)).to.be.within(306, 308);
    });
  });

  describe('peer outlier', () => {
    const latency = (stream: number, factor: (t: number) => number): CellSeries =>
      cellOf(
        200,
        { 'http.latency_p99_s': (t) => (0.04 + 0.004 * noise(t, stream)) * factor(t) },
        { cell: `c${stream}` },
      );
    const peers = [1, 2, 3].map((stream) => latency(stream, () => 1));
    const slow = latency(4, (t) => (t < 100 ? 1 : 3));
    const detector = named(peerOutliers(), 'peer-outlier span 5 k 1');

    it('names the cell that left its peers, and not the peers', () => {
      const scores = detector.score(slow, [...peers, slow]);
      expect(greatest(scores, 0, 100)).to.be.lessThan(6);
      expect(scores[110]).to.be.greaterThan(15);
      expect(greatest(detector.score(peers[0]!, [peers[1]!, peers[2]!, slow]))).to.be.lessThan(8);
    });

    it('has no opinion with fewer than three peers, or with peers of another service', () => {
      expect(detector.score(slow, peers.slice(0, 2)).every(Number.isNaN)).to.equal(true);
      const strangers = peers.map((peer) => ({ ...peer, service: 'other' }));
      expect(detector.score(slow, strangers).every(Number.isNaN)).to.equal(true);
    });

    it('compares values of the same moment, however the recordings begin', () => {
      const later = peers.map((peer) => ({ ...peer, startMs: t0 + 150 * stepMs }));
      const scores = detector.score(slow, later);
      expect(scores.findIndex((score) => score === score)).to.be.within(150, 154);
    });
  });

  describe('cluster distance', () => {
    it('finds a metric strange whose changes have a shape that no model knows', () => {
      const course: Course = {
        'http.request_rate': (t) => 100 + 5 * noise(t) + (t >= 700 && t < 720 ? 80 * Math.sin(t) : 0),
        'http.in_flight': (t) => 10 + noise(t, 1),
      };
      const detector = named(clusterDistances(), 'cluster-distance window 120 span 5');
      const scores = detector.score(cellOf(900, course), []);
      expect(firstAt(scores, 0.5)).to.be.within(700, 710);
      expect(greatest(scores, 500, 700)).to.be.lessThan(0.3);
      expect(scores[100]).to.be.NaN;
    });
  });

  describe('tail probability', () => {
    it('is exact in the middle and in the tail', () => {
      expect(surprise(0)).to.be.closeTo(0, 1e-6);
      expect(surprise(-1.959964)).to.be.closeTo(-Math.log(0.05), 1e-4);
      expect(surprise(3.0001)).to.be.closeTo(-Math.log(0.0026989), 1e-3);
      expect(surprise(5)).to.be.closeTo(-Math.log(5.733e-7), 1e-3);
    });

    it('gathers a lasting deviation on a scale of 0 to 100, healthy time below 50', () => {
      const training = [1, 2, 3].map((stream) => cellOf(1200, healthy(10 * stream)));
      const sick = cellOf(600, {
        ...healthy(50),
        'http.latency_p99_s': (t) => 0.04 + 0.004 * noise(t, 53) + (t >= 400 ? 0.03 : 0),
      });
      const detector = named(tailProbabilities(), 'tail-probability memory 240 bucket 1 worst');
      detector.fit?.(training);
      const scores = detector.score(sick, []);
      expect(greatest(scores, 100, 400)).to.be.lessThan(60);
      expect(greatest(scores, 400, 430)).to.be.within(80, 100);
    });
  });

  describe('PCA and isolation forest', () => {
    /** Load goes up and down; CPU, bytes and requests in flight follow it, from `broken` on the CPU half a period late. */
    const coupled = (stream: number, broken = Infinity): CellSeries => {
      const load = (t: number) => Math.sin((t + 37 * stream) / 9);
      return cellOf(900, {
        'http.request_rate': (t) => 100 + 30 * load(t) + 2 * noise(t, stream),
        'cpu.utilization': (t) => 0.5 + 0.2 * load(t < broken ? t : t + 28) + 0.01 * noise(t, stream + 20),
        'network.receive_rate': (t) => 1e6 * (1 + 0.3 * load(t)) + 2e4 * noise(t, stream + 40),
        'http.in_flight': (t) => 20 + 8 * load(t) + 0.5 * noise(t, stream + 60),
      });
    };
    const training = [1, 2, 3, 4].map((stream) => coupled(stream));

    it('PCA sees that metrics no longer move together, though each stays within its range', () => {
      for (const measure of ['rest 0.7', 'weighted']) {
        const detector = named(pcas(), `pca memory 480 window 1 ${measure}`);
        detector.fit?.(training);
        const scores = detector.score(coupled(7, 600), []);
        expect(greatest(scores, 600) / greatest(scores, 200, 600), measure).to.be.greaterThan(5);
      }
    });

    it('an isolation forest sees a value that was never seen', () => {
      const detector = named(isolationForests(), 'isolation-forest memory 480 window 1');
      detector.fit?.(training);
      const usual = coupled(8);
      const course: Course = Object.fromEntries(
        [...usual.values].map(([metric, values]) => [metric, (t: number) => values[t]! * (t < 600 ? 1 : 1.8)]),
      );
      const scores = detector.score(cellOf(900, course), []);
      expect(greatest(scores, 200, 600)).to.be.lessThan(0.62);
      expect(greatest(scores, 600)).to.be.greaterThan(0.65);
    });

    it('learn from healthy stretches only', () => {
      const incident = { cell: 'a', fault: 'x', predictable: true };
      const faultStartMs = t0 + 600 * stepMs;
      const sick = coupled(7, 600);
      const told = {
        ...sick,
        incidents: [{ ...incident, faultStartMs, onsetMs: faultStartMs, recoveredMs: Infinity }],
      };
      const scoresAfter = (cell: CellSeries) => {
        const detector = named(pcas(), 'pca memory 480 window 1 weighted');
        detector.fit?.([training[0]!, cell]);
        return greatest(detector.score(sick, []), 600);
      };
      expect(scoresAfter(told)).to.be.greaterThan(2 * scoresAfter(sick));
    });

    it('say nothing before they have learnt', () => {
      for (const detector of [...pcas(), ...isolationForests()]) {
        expect(detector.score(training[0]!, []).every(Number.isNaN), detector.name).to.equal(true);
      }
    });

    it('rest on true eigenvectors', () => {
      const { values, vectors } = symmetricEigen(Float64Array.from([4, 1, 0, 1, 3, 1, 0, 1, 2]), 3);
      expect(values[0]! + values[1]! + values[2]!).to.be.closeTo(9, 1e-12);
      expect(values[0]).to.be.closeTo(3 + Math.sqrt(3), 1e-12);
      const [x, y, z] = vectors[0]!;
      expect(4 * x! + y!).to.be.closeTo(values[0]! * x!, 1e-12);
      expect(x! + 3 * y! + z!).to.be.closeTo(values[0]! * y!, 1e-12);
    });
  });

  describe('all of them', () => {
    const names = Object.keys(healthy(0)) as MetricName[];
    const training = [1, 2, 3].map((stream) => cellOf(500, healthy(10 * stream), { cell: `t${stream}` }));
    const all = allComparators();
    before(() => {
      for (const detector of all) detector.fit?.(training);
    });

    /** A cell with a ramp, a step, gaps, infinities and absurd values, all from one number. */
    const eventful = (seed: number, ticks: number, cell: string): CellSeries => {
      const usual = healthy(seed);
      const course: Course = Object.fromEntries(
        names.map((metric, index) => [
          metric,
          (t: number) => {
            const fate = noise(t, seed + 100 * index + 7);
            if (fate > 0.8 || Math.floor(t / 40) === (seed + index) % 9) return NaN;
            if (fate < -0.995) return [Infinity, -Infinity, 1e300, -1][(seed + t) % 4]!;
            const growth = metrics[metric].limit === undefined ? 1 : 1 + Math.max(0, t - 200) / 300;
            return usual[metric]!(t) * growth * (t > 300 + (seed % 50) ? 1.3 : 1);
          },
        ]),
      );
      return cellOf(ticks, course, { cell });
    };
    const prefixOf = (cell: CellSeries, ticks: number): CellSeries => ({
      ...cell,
      ticks,
      values: new Map([...cell.values].map(([metric, values]) => [metric, values.slice(0, ticks)])),
    });

    it('never look ahead: the scores of a beginning are the beginning of the scores', () => {
      fc.assert(
        fc.property(fc.integer({ min: 0, max: 1000 }), fc.integer({ min: 1, max: 420 }), (seed, ticks) => {
          const cell = eventful(seed, 420, 'a');
          const peers = [1, 2, 3].map((n) => eventful(seed + n, 420, `p${n}`));
          const beginning = prefixOf(cell, ticks);
          const peersThen = peers.map((peer) => prefixOf(peer, ticks));
          for (const detector of all) {
            const whole = detector.score(cell, peers);
            expect(whole.length, detector.name).to.equal(420);
            const bits = (scores: Float32Array) => Buffer.from(scores.slice(0, ticks).buffer).toString('base64');
            expect(bits(detector.score(beginning, peersThen)), detector.name).to.equal(bits(whole));
          }
        }),
        { numRuns: 4, seed: 20251122 },
      );
    });

    it('go on through gaps, infinities and absurd values, and never answer with an infinity', () => {
      const cell = eventful(3, 600, 'a');
      const peers = [1, 2, 3].map((n) => eventful(n + 20, 600, `p${n}`));
      for (const detector of all) {
        const scores = detector.score(cell, peers);
        const said = scores.filter((score) => !Number.isNaN(score));
        expect(said.every(Number.isFinite), detector.name).to.equal(true);
        const slowToStart = /\[6h\]/.test(detector.name);
        if (!slowToStart) expect(said.length, detector.name).to.be.greaterThan(100);
      }
    });

    it('say nothing of a cell that sends nothing', () => {
      const silent = cellOf(100, { 'cpu.utilization': () => NaN, 'memory.used_bytes': () => NaN });
      for (const detector of all) {
        expect(detector.score(silent, []).every(Number.isNaN), detector.name).to.equal(true);
        expect(detector.score(cellOf(0, healthy(1)), []).length, detector.name).to.equal(0);
      }
    });

    it('answer the same again, learnt anew', () => {
      const cell = eventful(5, 420, 'a');
      const again = allComparators();
      for (const [index, detector] of again.entries()) {
        detector.fit?.(training);
        expect(detector.score(cell, []), detector.name).to.deep.equal(all[index]!.score(cell, []));
      }
    });
  });

  describe('their OR', () => {
    const fixed = (name: string, scores: number[]): Detector => ({
      name,
      family: name,
      score: () => Float32Array.from(scores),
    });
    it('is at 1 exactly when a member is at its threshold, for as long as that member needs', () => {
      const a = { detector: fixed('a', [0.1, 0.3, 0.2, NaN]), threshold: Math.fround(0.3) };
      const b = { detector: fixed('b', [-3, -4, -1, NaN]), threshold: -1 };
      const scores = orOf([a, b]).score(cellOf(4, {}), []);
      expect([...scores].map((score) => score >= 1)).to.deep.equal([false, true, true, false]);
      expect(scores[3]).to.be.NaN;
      const patient = orOf([{ ...a, threshold: Math.fround(0.2), persist: 2 }]).score(cellOf(4, {}), []);
      expect([...patient].map((score) => score >= 1)).to.deep.equal([false, false, true, false]);
    });
  });

  describe('rolling figures', () => {
    it('`for` is the lowest of the last so many scores, over a lost sample but not over a long silence', () => {
      const scores = Float32Array.from([3, 1, 4, NaN, 5, 9, 2, NaN, NaN, NaN, NaN, NaN, NaN, 6, 5, 7]);
      const none = NaN;
      expect([...sustained(scores, 3)]).to.deep.equal([
        ...[none, none, 1, none, 1, 4, 2, none, none, none, none, none, none, none, none, 5],
      ]);
    });

    it('a trailing median is the upper value of half of the span', () => {
      const values = Float32Array.from([1, 9, 1, 9, 9, NaN, NaN, NaN]);
      expect([...trailingMedian(values, 3)]).to.deep.equal([NaN, 1, 1, 9, 9, 9, NaN, NaN]);
    });
  });
});
