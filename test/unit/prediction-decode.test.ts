/** Decoders: real producers' bytes, counters that reset, and whatever else may lie in a topic. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import * as fc from 'fast-check';
import { packageRoot } from '../../package-root';
import type { Sample } from '../../prediction/contracts';
import { createDecoders } from '../../prediction/decode/detect';
import { createOtlpDecoder } from '../../prediction/decode/otlp';
import { SeriesStore, histogramQuantile } from '../../prediction/decode/series';
import { decodeUnderstudyJson } from '../../prediction/decode/understudy-json';

const golden = (file: string) => readFileSync(join(packageRoot, 'test', 'golden', 'telemetry', file));

const startMs = 1_795_328_800_000;
const nanos = (ms: number) => `${ms}000000`;
const attributes = (map: Record<string, string>) =>
  Object.entries(map).map(([key, stringValue]) => ({ key, value: { stringValue } }));

interface HttpPoint {
  status: string;
  buckets: number[];
}

function httpRequest(
  atMs: number,
  points: HttpPoint[],
  { temporality = 2, start = startMs }: { temporality?: number; start?: number } = {},
): Buffer {
  const dataPoints = points.map(({ status, buckets }) => ({
    attributes: attributes({ 'http.response.status_code': status }),
    startTimeUnixNano: nanos(start),
    timeUnixNano: nanos(atMs),
    count: String(buckets.reduce((a, b) => a + b, 0)),
    sum: 1,
    bucketCounts: buckets.map(String),
    explicitBounds: [0.1, 0.2, 0.4],
  }));
  return request([
    { name: 'http.server.request.duration', histogram: { aggregationTemporality: temporality, dataPoints } },
  ]);
}

function request(metrics: unknown[], resource: Record<string, string> = {}): Buffer {
  const identity = { 'cell.id': 'eu-1', 'service.instance.id': 'eu-1-a', ...resource };
  return Buffer.from(
    JSON.stringify({
      resourceMetrics: [{ resource: { attributes: attributes(identity) }, scopeMetrics: [{ metrics }] }],
    }),
  );
}

const byMetric = (samples: Sample[]) => Object.fromEntries(samples.map((s) => [s.metric, s.value]));

describe('OTLP decoder', () => {
  it('reads the same samples from the protobuf and the JSON form of a real SDK export', () => {
    const fromBinary = createOtlpDecoder()(golden('otlp.bin'));
    const fromJson = createOtlpDecoder()(golden('otlp.json'));
    expect(fromBinary).to.deep.equal(fromJson);
    expect(fromBinary.problems).to.deep.equal([]);
    expect(fromBinary.samples.every((s) => s.cell === 'cell-a' && s.instance === 'cell-a-1')).to.equal(true);
    expect(fromBinary.samples.every((s) => s.atMs === 1_795_328_836_317)).to.equal(true);
    const values = byMetric(fromBinary.samples);
    expect(values['memory.used_bytes']).to.equal(59_265_024);
    expect(values['cpu.utilization']).to.be.closeTo(0.002762778505897772 + 0.0009836173001310615, 1e-12);
  });

  it('derives rate, error ratio and latencies from cumulative histograms of two exports', () => {
    const decode = createOtlpDecoder();
    expect(decode(httpRequest(startMs + 1000, [{ status: '200', buckets: [10, 0, 0, 0] }])).samples).to.deep.equal([]);
    const second = decode(
      httpRequest(startMs + 3000, [
        { status: '200', buckets: [110, 80, 0, 0] },
        { status: '503', buckets: [0, 0, 20, 0] },
      ]),
    );
    const values = byMetric(second.samples);
    expect(values['http.request_rate']).to.equal(100);
    expect(values['http.error_ratio']).to.equal(0.1);
    expect(values['http.latency_p50_s']).to.be.closeTo(0.1, 1e-12);
    expect(values['http.latency_p99_s']).to.be.closeTo(0.2 + 0.2 * (18 / 20), 1e-12);
  });

  it('counts from zero again after a restarted process, and never reports a negative rate', () => {
    const decode = createOtlpDecoder();
    decode(httpRequest(startMs + 1000, [{ status: '200', buckets: [1000, 0, 0, 0] }]));
    const restarted = decode(
      httpRequest(startMs + 3000, [{ status: '200', buckets: [50, 0, 0, 0] }], { start: startMs + 2000 }),
    );
    expect(byMetric(restarted.samples)['http.request_rate']).to.equal(50);
  });

  it('takes delta histograms as they are and ignores a redelivered export', () => {
    const decode = createOtlpDecoder();
    const record = httpRequest(startMs + 2000, [{ status: '200', buckets: [40, 0, 0, 0] }], { temporality: 1 });
    expect(byMetric(decode(record).samples)['http.request_rate']).to.equal(20);
    expect(decode(record).samples).to.deep.equal([]);
  });

  it('says nothing about errors and latency when there was no request', () => {
    const decode = createOtlpDecoder();
    decode(httpRequest(startMs + 1000, [{ status: '200', buckets: [5, 0, 0, 0] }]));
    const idle = decode(httpRequest(startMs + 2000, [{ status: '200', buckets: [5, 0, 0, 0] }]));
    expect(byMetric(idle.samples)).to.deep.equal({ 'http.request_rate': 0 });
  });

  it('turns garbage-collection seconds into the share of time spent in it', () => {
    const gc = (atMs: number, sum: number) =>
      request([
        {
          name: 'v8js.gc.duration',
          histogram: {
            aggregationTemporality: 2,
            dataPoints: [{ startTimeUnixNano: nanos(startMs), timeUnixNano: nanos(atMs), count: 4, sum }],
          },
        },
      ]);
    const decode = createOtlpDecoder();
    decode(gc(startMs + 1000, 1));
    expect(byMetric(decode(gc(startMs + 3000, 1.5)).samples)['gc.share']).to.equal(0.25);
  });

  it('adds up heap spaces, takes canonical gauges as limits, and never takes a growing heap space for the limit', () => {
    const point = (space: string, asInt: string) => ({
      attributes: attributes({ 'v8js.heap.space.name': space }),
      timeUnixNano: nanos(startMs),
      asInt,
    });
    const spaces = [point('old_space', '30'), point('new_space', '12')];
    const { samples } = createOtlpDecoder()(
      request([
        { name: 'v8js.memory.heap.used', gauge: { dataPoints: spaces } },
        { name: 'v8js.memory.heap.limit', gauge: { dataPoints: spaces } },
        { name: 'heap.limit_bytes', gauge: { dataPoints: [{ timeUnixNano: nanos(startMs), asDouble: 64 }] } },
      ]),
    );
    expect(byMetric(samples)).to.deep.equal({ 'heap.used_bytes': 42, 'heap.limit_bytes': 64 });
  });

  it('reads host CPU in both attribute dialects, but only where the process sends none of its own', () => {
    const cpu = (key: string, state: string, asDouble: number) => ({
      attributes: attributes({ [key]: state, cpu: 'cpu0' }),
      timeUnixNano: nanos(startMs),
      asDouble,
    });
    const host = (key: string) => ({
      name: 'system.cpu.utilization',
      gauge: { dataPoints: [cpu(key, 'user', 0.25), cpu(key, 'idle', 0.75)] },
    });
    const own = { name: 'process.cpu.utilization', gauge: { dataPoints: [cpu('process.cpu.state', 'user', 0.1)] } };
    for (const key of ['state', 'system.cpu.state']) {
      expect(byMetric(createOtlpDecoder()(request([host(key)])).samples)).to.deep.equal({ 'cpu.utilization': 0.25 });
    }
    expect(byMetric(createOtlpDecoder()(request([host('state'), own])).samples)['cpu.utilization']).to.equal(0.1);
  });

  it('names what is missing instead of guessing: cell, instance, time, temporality', () => {
    const reasons = (record: Buffer) => createOtlpDecoder()(record).problems.map((p) => p.reason);
    const gauge = (point: object) => [{ name: 'process.memory.usage', gauge: { dataPoints: [point] } }];
    expect(reasons(request([], { 'cell.id': '' }))).to.deep.equal(['no-cell']);
    expect(reasons(request([], { 'service.instance.id': '' }))).to.deep.equal(['no-instance']);
    expect(reasons(request(gauge({ asDouble: 1 })))).to.deep.equal(['bad-time']);
    expect(reasons(request(gauge({ timeUnixNano: nanos(startMs), asDouble: 'NaN' })))).to.deep.equal(['bad-value']);
    expect(reasons(httpRequest(startMs, [], { temporality: 0 }))).to.deep.equal(['bad-temporality']);
    expect(reasons(Buffer.from('{"resourceMetrics":[]}'))).to.deep.equal(['empty']);
    expect(reasons(Buffer.from('{"resourceMetrics":'))).to.deep.equal(['not-json']);
    expect(reasons(Buffer.from([0x0a, 0xff]))).to.deep.equal(['not-protobuf']);
  });

  it('keeps its memory bounded under hostile cardinality', () => {
    const series = new SeriesStore(100, 20);
    const point = (key: string, timeMs: number) => ({ key, startMs: 0, timeMs, count: 1, sum: 1, buckets: [] });
    for (let group = 0; group < 50; group++) {
      series.advance(
        `g${group}`,
        Array.from({ length: 500 }, (_, i) => point(`k${i}`, 1)),
        'cumulative',
      );
    }
    expect(series.seriesCount).to.be.at.most(100);
  });
});

describe('Understudy JSON decoder', () => {
  const record = {
    schema: 'understudy.telemetry/v1',
    cell: 'eu-1-a',
    instance: 'eu-1-a-1',
    ts: '2026-11-22T06:40:01.250Z',
    metrics: { 'cpu.utilization': 0.83, 'memory.used_bytes': 41e6, 'somebody.else': 1, 'gc.share': null },
  };
  const decode = (value: unknown) => decodeUnderstudyJson(Buffer.from(JSON.stringify(value)));

  it('takes canonical metrics and leaves others alone', () => {
    const { samples, problems } = decode(record);
    expect(problems).to.deep.equal([]);
    expect(byMetric(samples)).to.deep.equal({ 'cpu.utilization': 0.83, 'memory.used_bytes': 41e6 });
    expect(samples[0]?.atMs).to.equal(Date.parse('2026-11-22T06:40:01.250Z'));
  });

  it('refuses records without schema, cell, instance or time, each with its reason', () => {
    expect(decode({ ...record, schema: 'other/v1' }).problems[0]?.reason).to.equal('wrong-schema');
    expect(decode({ ...record, cell: 7 }).problems[0]?.reason).to.equal('no-cell');
    expect(decode({ ...record, instance: undefined }).problems[0]?.reason).to.equal('no-instance');
    expect(decode({ ...record, ts: 'yesterday' }).problems[0]?.reason).to.equal('bad-time');
    expect(decode([record]).problems[0]?.reason).to.equal('wrong-schema');
  });

  it('keeps the good metrics of a record with a bad one', () => {
    const { samples, problems } = decode({ ...record, metrics: { 'cpu.utilization': 'high', 'fd.used': 3 } });
    expect(byMetric(samples)).to.deep.equal({ 'fd.used': 3 });
    expect(problems.map((p) => p.reason)).to.deep.equal(['bad-value']);
  });
});

describe('Any decoder', () => {
  const decoders = createDecoders();

  it('never throws and never yields an unusable sample, whatever the bytes', () => {
    const bytes = fc.uint8Array({ maxLength: 400 }).map((a) => Buffer.from(a));
    const json = fc.json().map((text) => Buffer.from(text));
    const damaged = fc.tuple(fc.nat(4000), fc.nat(255)).map(([position, byte]) => {
      const copy = Buffer.from(golden('otlp.bin'));
      copy[position % copy.length] = byte;
      return copy;
    });
    const hostileJson = fc
      .json()
      .map((text) => Buffer.from(`{"resourceMetrics":[{"resource":${text},"scopeMetrics":[{"metrics":[${text}]}]}]}`));
    fc.assert(
      fc.property(fc.oneof(bytes, json, damaged, hostileJson), (value) => {
        for (const decode of Object.values(decoders)) {
          const { samples, problems } = decode(value);
          expect(samples.every((s) => Number.isFinite(s.value) && Number.isFinite(s.atMs) && s.cell !== '')).to.equal(
            true,
          );
          expect(problems.every((p) => p.detail.length > 0 && p.detail.length < 400)).to.equal(true);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('is found by the bytes when none is configured', () => {
    expect(decoders.detect(golden('otlp.json')).samples).to.not.be.empty;
    expect(createDecoders().detect(golden('otlp.bin')).samples).to.not.be.empty;
    expect(decoders.detect(Buffer.from('{"hello":1}')).problems[0]?.reason).to.equal('unknown-format');
    expect(decoders.detect(Buffer.alloc(0)).problems[0]?.reason).to.equal('empty');
  });
});

describe('histogramQuantile', () => {
  it('lies within the bucket that holds the rank', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(1000), { minLength: 4, maxLength: 4 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (buckets, q) => {
          const value = histogramQuantile(q, [0.1, 0.2, 0.4], buckets);
          if (buckets.every((n) => n === 0)) expect(value).to.equal(undefined);
          else expect(value).to.be.within(0, 0.4);
        },
      ),
    );
  });
});
