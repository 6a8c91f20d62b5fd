/** The feature extractor: same input, same bits; relative to limit and own baseline; missing stays missing. */
import { expect } from 'chai';
import * as fc from 'fast-check';
import type { Sample } from '../../prediction/contracts';
import { featureRows } from '../../prediction/feature-rows';
import { featureNames, featureSpec, featureSpecHash, historySteps, FeatureExtractor } from '../../prediction/features';
import type { MetricName } from '../../prediction/metrics';

const t0 = 1_795_328_800_000;

/** Deterministic noise in [-1, 1). */
function noise(seed: number): number {
  let x = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return ((x ^ (x >>> 16)) >>> 0) / 2 ** 31 - 1;
}

type Course = (second: number) => Partial<Record<MetricName, number>>;

function record(cell: string, seconds: number, course: Course, instance = `${cell}-1`): Sample[] {
  return Array.from({ length: seconds }, (_, s) =>
    Object.entries(course(s)).map(([metric, value]): Sample => ({
      cell,
      instance,
      atMs: t0 + s * 1000,
      metric: metric as MetricName,
      value,
    })),
  ).flat();
}

const healthy: Course = (s) => ({
  'heap.used_bytes': 20e6 + 1e6 * noise(s),
  'heap.limit_bytes': 64e6,
  'http.request_rate': 100 + 5 * noise(s + 7),
  'http.latency_p50_s': 0.01 + 0.001 * noise(s + 11),
  'http.latency_p99_s': 0.04 + 0.004 * noise(s + 13),
  'http.error_ratio': 0,
});

const leaking =
  (from: number): Course =>
  (s) => ({ ...healthy(s), 'heap.used_bytes': 20e6 + 1e6 * noise(s) + Math.max(0, s - from) * 0.64e6 });

const at = (row: Float32Array | undefined, name: string): number => {
  const index = featureNames.indexOf(name);
  expect(index, name).to.be.at.least(0);
  return row?.[index] ?? NaN;
};
const bits = (row: Float32Array) => Buffer.from(row.buffer, row.byteOffset, row.byteLength).toString('hex');
const lastRow = (samples: Sample[]) => [...featureRows(samples, 1000)].pop()?.features;

describe('Feature extractor', () => {
  it('names every feature once, in the order of one hashed specification', () => {
    expect(new Set(featureNames).size).to.equal(featureNames.length);
    expect(featureNames.length).to.be.within(150, 300);
    expect(featureSpecHash).to.match(/^[0-9a-f]{64}$/);
    expect(new FeatureExtractor(featureSpec).featureCount).to.equal(featureNames.length);
  });

  it('gives bit-equal rows when a recording is replayed, also in another order', () => {
    const samples = [...record('a', 120, leaking(60)), ...record('b', 120, healthy)];
    const first = [...featureRows(samples, 1000)].map((r) => `${r.cell} ${r.atMs} ${bits(r.features)}`).sort();
    const second = [...featureRows([...samples].reverse(), 1000)]
      .map((r) => `${r.cell} ${r.atMs} ${bits(r.features)}`)
      .sort();
    expect(second).to.deep.equal(first);
  });

  it(`agrees with an extractor that never stopped once it has seen ${historySteps} steps`, () => {
    const samples = record('a', historySteps + 300, leaking(historySteps + 250));
    const restarted = samples.filter((s) => s.atMs > t0 + 250_000);
    expect(bits(lastRow(restarted) as Float32Array)).to.equal(bits(lastRow(samples) as Float32Array));
  });

  it('sees a leak as share of the limit, rising, with the steps that are left', () => {
    const row = lastRow(record('a', 100, leaking(60)));
    expect(at(row, 'heap.used_bytes:share')).to.be.closeTo((20 + 39 * 0.64) / 64, 0.03);
    expect(at(row, 'heap.used_bytes:slope-mid')).to.be.closeTo(0.01, 0.001);
    expect(Math.expm1(at(row, 'heap.used_bytes:log-steps-to-limit'))).to.be.within(20, 35);
    expect(at(row, 'heap.used_bytes:z')).to.be.greaterThan(6);
    expect(at(row, 'cell:resource-log-steps')).to.equal(at(row, 'heap.used_bytes:log-steps-to-limit'));
    expect(at(row, 'cell:symptoms-deviating')).to.equal(0);
  });

  it('finds nothing remarkable in healthy telemetry', () => {
    const row = lastRow(record('a', 100, healthy));
    expect(Math.abs(at(row, 'heap.used_bytes:z'))).to.be.lessThan(3);
    expect(at(row, 'cell:symptoms-deviating')).to.equal(0);
    expect(at(row, 'cell:missing')).to.equal(0);
  });

  it('keeps metrics that nobody sends as NaN rather than zero', () => {
    const row = lastRow(record('a', 60, healthy));
    expect(at(row, 'pool.used:share')).to.be.NaN;
    expect(at(row, 'fd.used:z')).to.be.NaN;
    expect(at(row, 'cell:log-change-age')).to.be.NaN;
  });

  it('lets values go after three steps of silence and says how old the newest sample is', () => {
    const extractor = new FeatureExtractor(featureSpec);
    const row = new Float32Array(featureNames.length);
    for (const sample of record('a', 30, healthy)) extractor.observe(sample);
    for (let s = 0; s < 30; s++) extractor.tick(['a'], t0 + s * 1000, row);
    extractor.tick(['a'], t0 + 31_000, row);
    expect(extractor.info('a')).to.include({ coverage: 1, newestSampleAgeMs: 2000 });
    extractor.tick(['a'], t0 + 32_000, row);
    expect(extractor.info('a')).to.include({ coverage: 0, newestSampleAgeMs: 3000 });
    expect(at(row, 'heap.used_bytes:share')).to.be.NaN;
  });

  it('does not let a frozen baseline learn the degradation', () => {
    const run = (freeze: boolean) => {
      const extractor = new FeatureExtractor(featureSpec);
      const row = new Float32Array(featureNames.length);
      const samples = record('a', 300, (s) => ({ ...healthy(s), 'http.latency_p99_s': s < 60 ? 0.04 : 0.2 }));
      let next = 0;
      for (let s = 0; s < 300; s++) {
        for (; (samples[next]?.atMs ?? Infinity) <= t0 + s * 1000; next++) extractor.observe(samples[next] as Sample);
        if (freeze && s === 62) extractor.freezeBaseline('a', true);
        extractor.tick(['a'], t0 + s * 1000, row);
      }
      return at(row, 'http.latency_p99_s:z');
    };
    expect(run(true)).to.be.greaterThan(10);
    expect(Math.abs(run(false))).to.be.lessThan(3);
  });

  it('takes a multiple of the usual p99 for the objective of a cell that declares none', () => {
    const samples = record('a', 120, healthy);
    const undeclared = lastRow(samples);
    expect(at(undeclared, 'cell:p99-per-slo-mean')).to.be.closeTo(1 / 5, 0.02);
    const declared = [...featureRows(samples, 1000, { a: { sloLatencyMs: 80 } })].pop()?.features;
    expect(at(declared, 'cell:p99-per-slo-mean')).to.be.closeTo(0.5, 0.05);
  });

  it('compares the cells of a service with the median of the others, and leaves strangers out', () => {
    const busy: Course = (s) => ({ ...healthy(s), 'http.latency_p99_s': 0.4 });
    const samples = [
      ...record('a', 100, busy),
      ...record('b', 100, healthy),
      ...record('c', 100, healthy),
      ...record('stranger', 100, (s) => ({ ...healthy(s), 'http.latency_p99_s': 4 })),
    ];
    const facts = Object.fromEntries(['a', 'b', 'c'].map((cell) => [cell, { cohort: 'shop' }]));
    const last = new Map([...featureRows(samples, 1000, facts)].map((row) => [row.cell, row.features]));
    expect(at(last.get('a'), 'http.latency_p99_s:peer')).to.be.greaterThan(10);
    expect(Math.abs(at(last.get('a'), 'heap.used_bytes:peer'))).to.be.lessThan(1.5);
    expect(at(last.get('b'), 'http.latency_p99_s:peer')).to.be.below(0);
    expect(at(last.get('stranger'), 'http.latency_p99_s:peer')).to.be.NaN;
  });

  it('puts instances together by the rule of the metric: the fullest heap, the sum of the rates', () => {
    const twin: Course = (s) => ({ ...healthy(s), 'heap.used_bytes': 48e6 });
    const extractor = new FeatureExtractor(featureSpec);
    for (const sample of [...record('a', 1, healthy), ...record('a', 1, twin, 'a-2')]) extractor.observe(sample);
    extractor.tick(['a'], t0, new Float32Array(featureNames.length));
    expect(extractor.info('a')).to.include({ freshInstances: 2, knownInstances: 2 });
    expect(extractor.figures('a', 'heap.used_bytes')?.value).to.equal(48e6);
    expect(extractor.figures('a', 'http.request_rate')?.value).to.be.closeTo(200, 15);
  });

  it('stays bounded and finite or NaN for any values in any order', () => {
    const anySample = fc.record({
      cell: fc.constantFrom('a', 'b'),
      instance: fc.integer({ min: 0, max: 200 }).map(String),
      atMs: fc.integer({ min: t0, max: t0 + 90_000 }),
      metric: fc.constantFrom<MetricName[]>(
        'heap.used_bytes',
        'heap.limit_bytes',
        'http.latency_p99_s',
        'http.request_rate',
      ),
      value: fc.double({ noNaN: true, noDefaultInfinity: true }),
    });
    fc.assert(
      fc.property(fc.array(anySample, { maxLength: 400 }), (samples) => {
        for (const { features, info } of featureRows(samples, 1000)) {
          expect(features.length).to.equal(featureNames.length);
          expect(features.some((f) => Math.abs(f) === Infinity)).to.equal(false);
          expect(info.knownInstances).to.be.at.most(64);
        }
      }),
      { numRuns: 30 },
    );
  });
});
