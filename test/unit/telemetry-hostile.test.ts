/** Hostile and broken telemetry: no decoder throws, grows, hangs or lets through what no metric can be. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import * as fc from 'fast-check';
import { jsonMapSchema } from '../../blueprints/telemetry-settings';
import { packageRoot } from '../../package-root';
import { decompressLz4, decompressSnappy, decompressZstd } from '../../prediction/compression-formats';
import type { DecodeResult } from '../../prediction/decode/decoder';
import { createDecoders } from '../../prediction/decode/detect';
import { admit } from '../../prediction/decode/sink';
import { metricNames } from '../../prediction/metrics';

const golden = (file: string) => readFileSync(join(packageRoot, 'test', 'golden', 'telemetry', file));
const real = [
  golden('otlp.bin'),
  golden('otlp.json'),
  ...['collectd.ndjson', 'telegraf.influx', 'telegraf.ndjson'].flatMap((file) =>
    golden(file)
      .toString('utf8')
      .split('\n')
      .slice(0, 30)
      .map((line) => Buffer.from(line)),
  ),
];
const jsonMap = jsonMapSchema.parse({
  time: { path: '/time', unit: 's' },
  metrics: [{ metric: 'cpu.utilization', path: '/values/0', counter: true }],
});
const identity = [{ kind: 'constant' as const, cell: 'c' }];
const decoders = createDecoders({ identity, jsonMap });
const t0 = 1_795_328_800_000;

function expectSound({ samples, problems }: DecodeResult, input: Buffer): void {
  for (const { cell, instance, atMs, metric, value } of samples) {
    expect(cell).to.not.equal('');
    expect(instance).to.not.equal('');
    expect(Number.isFinite(atMs)).to.equal(true);
    expect(admit(metric, value)).to.equal(value);
  }
  expect(problems.length).to.be.at.most(20);
  expect(samples.length).to.be.at.most(Math.max(64, input.length));
  expect(problems.every((p) => p.detail.length > 0 && p.detail.length < 400)).to.equal(true);
}

describe('Hostile telemetry', () => {
  it('never makes a decoder throw, whatever the bytes: arbitrary, truncated, flipped, spliced', () => {
    const whole = fc.constantFrom(...real);
    const truncated = fc.tuple(whole, fc.nat()).map(([record, n]) => record.subarray(0, n % (record.length + 1)));
    const flipped = fc
      .tuple(whole, fc.array(fc.tuple(fc.nat(), fc.nat(7)), { minLength: 1, maxLength: 8 }))
      .map(([record, flips]) => {
        const copy = Buffer.from(record);
        for (const [at, bit] of flips) copy[at % copy.length] = (copy[at % copy.length] ?? 0) ^ (1 << bit);
        return copy;
      });
    const spliced = fc
      .tuple(whole, whole, fc.nat())
      .map(([a, b, n]) => Buffer.concat([a.subarray(0, n % a.length), b]));
    const arbitrary = fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes));
    const json = fc.json().map((text) => Buffer.from(text));
    fc.assert(
      fc.property(fc.oneof(arbitrary, json, truncated, flipped, spliced), (value) => {
        for (const decode of Object.values(decoders)) expectSound(decode(value), value);
      }),
      { numRuns: 400 },
    );
    expect(Object.keys(Object.prototype)).to.deep.equal([]);
  });

  it('counts 5,000 unknown metrics of one record and keeps the known one', () => {
    const metrics: Record<string, number> = { 'fd.used': 3 };
    for (let i = 0; i < 5000; i++) metrics[`made.up.${i}`] = i;
    const own = {
      schema: 'understudy.telemetry/v1',
      cell: 'c',
      instance: 'i',
      ts: new Date(t0).toISOString(),
      metrics,
    };
    const read = decoders.detect(Buffer.from(JSON.stringify(own)));
    expect(read.samples.map((s) => s.metric)).to.deep.equal(['fd.used']);
    expect(read.ignored).to.deep.equal({ unmapped: 5000 });
    const lines = Array.from({ length: 5000 }, (_, i) => `made_up_${i},host=h v=1 ${t0}000000`).join('\n');
    const influx = decoders.detect(Buffer.from(lines));
    expect(influx).to.deep.equal({ samples: [], problems: [], ignored: { unmapped: 5000 } });
  });

  it('bounds the complaints about a record that is wrong in 5,000 places', () => {
    const bad = Array.from({ length: 5000 }, () => ({ plugin: 'memory' }));
    const { problems } = decoders.collectd(Buffer.from(JSON.stringify(bad)));
    expect(problems).to.have.length(20);
    expect(problems[19]?.detail).to.match(/^\(and 4980 more\)/);
  });

  it('survives nesting as deep as a record can be', () => {
    for (const [open, close] of [
      ['[', ']'],
      ['{"fields":', '}'],
      ['{"resourceMetrics":[', ']}'],
    ]) {
      const deep = Buffer.from(`${open?.repeat(40_000)}1${close?.repeat(40_000)}`);
      for (const decode of Object.values(decoders)) expectSound(decode(deep), deep);
    }
  });

  it('lets through no number that its metric cannot be', () => {
    fc.assert(
      fc.property(fc.constantFrom(...metricNames), fc.double(), (metric, value) => {
        const admitted = admit(metric, value);
        if (typeof admitted === 'string') return;
        expect(Number.isFinite(admitted)).to.equal(true);
        if (metric !== 'certificate.left_s') expect(admitted).to.be.at.least(0);
      }),
    );
    expect(admit('cpu.utilization', 1.02)).to.equal(1);
    expect(admit('http.error_ratio', -0.2)).to.be.a('string');
    expect(admit('cpu.utilization', 83)).to.match(/per cent/);
    expect(admit('memory.used_bytes', 1e300)).to.be.a('string');
    expect(admit('certificate.left_s', -60)).to.equal(-60);
  });

  it('yields the same samples when a stream is delivered twice over', () => {
    const stream = golden('collectd.ndjson')
      .toString('utf8')
      .split('\n')
      .filter(Boolean)
      .map((l) => Buffer.from(l));
    const once = createDecoders({ identity });
    const twice = createDecoders({ identity });
    const first = stream.flatMap((record) => once.detect(record).samples);
    const second = stream.flatMap((record) => [...twice.detect(record).samples, ...twice.detect(record).samples]);
    expect(second).to.deep.equal(first);
  });
});

describe('Compressed batches', () => {
  const bound = 1024 * 1024;
  const formats = { snappy: decompressSnappy, lz4: decompressLz4, zstd: decompressZstd };

  it('that are damaged are refused or become something bounded, never more', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 300 }),
        fc.constantFrom(...Object.entries(formats)),
        (bytes, [name, unpack]) => {
          const magic =
            { snappy: [], lz4: [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0], zstd: [0x28, 0xb5, 0x2f, 0xfd] }[name] ?? [];
          let length = 0;
          try {
            length = unpack(Buffer.from([...magic, ...bytes]), bound).length;
          } catch (error) {
            expect(error).to.be.instanceOf(Error);
          }
          expect(length).to.be.at.most(bound);
        },
      ),
      { numRuns: 500 },
    );
  });

  it('that ask for gigabytes are refused before any is taken', () => {
    // Snappy: a length of 4 GiB. zstd: a window of 2 GiB. LZ4: a run of 2 MiB in blocks of 4 MiB.
    expect(() => decompressSnappy(Buffer.from([0xff, 0xff, 0xff, 0xff, 0x0f, 0]), bound)).to.throw('would become more');
    const window = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0xa8, 1, 0, 0]);
    expect(() => decompressZstd(window, bound)).to.throw('would become more');
    const run = Buffer.concat([Buffer.from([0x1f, 65, 1, 0]), Buffer.alloc(2 * 4112, 255), Buffer.from([0, 0x10, 66])]);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(run.length);
    const frame = Buffer.concat([Buffer.from([0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0]), length, run, Buffer.alloc(4)]);
    expect(() => decompressLz4(frame, bound)).to.throw('would become more');
    expect(decompressLz4(frame, 8 * bound).length).to.be.greaterThan(bound);
  });
});
