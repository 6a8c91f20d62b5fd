/** Telemetry formats that others write: their real bytes, counters and pieces of readings, identity, and JSON by a mapping. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { jsonMapSchema, telemetryTopicSchema } from '../../blueprints/telemetry-settings';
import { packageRoot } from '../../package-root';
import { StoreCellDirectory } from '../../prediction/cell-directory';
import type { Sample } from '../../prediction/contracts';
import type { DecodeProblem, Decoder, Ignored } from '../../prediction/decode/decoder';
import { createDecoders, type DecoderOptions } from '../../prediction/decode/detect';
import { Rounds } from '../../prediction/decode/rounds';

const golden = (file: string) => readFileSync(join(packageRoot, 'test', 'golden', 'telemetry', file));
const lines = (file: string) => golden(file).toString('utf8').split('\n').filter(Boolean);
const t0 = 1_795_328_800_000;
const seconds = t0 / 1000;

const byHost: DecoderOptions = {
  identity: [
    { kind: 'attribute', name: 'host', pattern: '^(?<cell>vm|cell-[a-z])(?:-(?<instance>.+))?$', gives: 'cell' },
  ],
};

interface Read {
  samples: Sample[];
  problems: DecodeProblem[];
  ignored: Ignored;
}

function readAll(decode: Decoder, records: readonly (string | object)[]): Read {
  const read: Read = { samples: [], problems: [], ignored: {} };
  for (const record of records) {
    const { samples, problems, ignored } = decode(
      Buffer.from(typeof record === 'string' ? record : JSON.stringify(record)),
    );
    read.samples.push(...samples);
    read.problems.push(...problems);
    for (const [reason, count] of Object.entries(ignored) as [keyof Ignored, number][]) {
      read.ignored[reason] = (read.ignored[reason] ?? 0) + count;
    }
  }
  return read;
}

const valuesOf = ({ samples }: Read, metric: string) => samples.filter((s) => s.metric === metric).map((s) => s.value);

describe('collectd decoder', () => {
  it('puts the value lists of a real host together: CPU as a share, all memory as the limit, rates per host', () => {
    const read = readAll(createDecoders(byHost).detect, lines('collectd.ndjson'));
    expect(read.problems).to.deep.equal([]);
    expect(new Set(read.samples.map((s) => `${s.cell}/${s.instance}`))).to.deep.equal(new Set(['cell-a/node-1']));
    expect(new Set(valuesOf(read, 'memory.limit_bytes'))).to.deep.equal(new Set([25_276_510_208]));
    expect(valuesOf(read, 'cpu.utilization')[3]).to.be.closeTo(0.17042606516290731, 1e-12);
    // 4.0004 ms a write, 52 ms of 1,000 busy.
    expect(valuesOf(read, 'disk.write_latency_s').at(-1)).to.be.closeTo(0.004, 1e-5);
    expect(valuesOf(read, 'disk.utilization').at(-1)).to.be.closeTo(0.052, 1e-4);
    expect(read.ignored['no-value']).to.equal(5);
  });

  it('takes the fullest file system, and counts what root keeps as no room', () => {
    const df = (at: number, disk: string, kind: string, value: number) => [
      { ...base(at), plugin: 'df', plugin_instance: disk, type: 'df_complex', type_instance: kind, values: [value] },
    ];
    const round = (at: number) => [
      df(at, 'root', 'used', 10),
      df(at, 'root', 'free', 90),
      df(at, 'data', 'used', 80),
      df(at, 'data', 'free', 15),
      df(at, 'data', 'reserved', 5),
    ];
    const read = readAll(createDecoders(byHost).collectd, [0, 10, 20].flatMap(round));
    expect(valuesOf(read, 'disk.used_bytes')).to.deep.equal([80]);
    expect(valuesOf(read, 'disk.limit_bytes')).to.deep.equal([95]);
  });

  it('makes rates of counters where write_kafka leaves them as they are', () => {
    const octets = (at: number, rx: number) => [
      {
        ...base(at),
        plugin: 'interface',
        plugin_instance: 'eth0',
        type: 'if_octets',
        dsnames: ['rx', 'tx'],
        dstypes: ['derive', 'derive'],
        values: [rx, 0],
      },
    ];
    const { collectd } = createDecoders({ ...byHost, collectd: { storeRates: false } });
    // The third reading is of a host that has started again.
    const read = readAll(collectd, [octets(0, 1000), octets(10, 3000), octets(20, 500), octets(30, 1500)]);
    expect(valuesOf(read, 'network.receive_rate')).to.deep.equal([50, 100]);
  });

  const base = (at: number) => ({
    host: 'cell-a-1',
    time: seconds + at,
    interval: 10,
    dsnames: ['value'],
    dstypes: ['gauge'],
  });
});

describe('Telegraf decoders', () => {
  for (const [format, file] of [
    ['telegraf-influx', 'telegraf.influx'],
    ['telegraf-json', 'telegraf.ndjson'],
  ] as const) {
    it(`reads a real ${format} stream, whose records are not in order`, () => {
      const read = readAll(createDecoders(byHost)[format], lines(file));
      expect(read.problems).to.deep.equal([]);
      expect(read.samples.every((s) => s.cell === 'vm' && s.instance === 'vm')).to.equal(true);
      expect(valuesOf(read, 'cpu.utilization')).to.have.length(5);
      expect(valuesOf(read, 'memory.used_bytes').every((used) => used > 9e8 && used < 1e9)).to.equal(true);
      expect(readAll(createDecoders(byHost).detect, lines(file))).to.deep.equal(read);
    });
  }

  it('reads several lines of one record, escapes, quotes and every type of value', () => {
    const text = [
      'unknown,x=y text="a, b=\\"c\\"\nnext line",flag=t 1',
      `mem,host=cell-a-1,note=a\\ b\\,c used=1048576i,total=2097152u,text="used=5" ${t0}000000`,
      '# a remark',
      `x509_cert,source=tcp://a:443,host=cell-a-1 expiry=-3.6e3 ${t0}000000`,
    ].join('\n');
    const read = readAll(createDecoders(byHost)['telegraf-influx'], [text]);
    expect(read.problems).to.deep.equal([]);
    expect(valuesOf(read, 'memory.used_bytes')).to.deep.equal([1048576]);
    expect(valuesOf(read, 'memory.limit_bytes')).to.deep.equal([2097152]);
    expect(read.samples[0]?.atMs).to.equal(t0);
    expect(read.ignored.unmapped).to.equal(2);
  });

  it('says where a line is wrong and reads the others', () => {
    const good = `mem,host=cell-a-1 used=1i ${t0}000000`;
    const read = readAll(createDecoders(byHost)['telegraf-influx'], [`mem,host=a used=1x 5\n${good}\nmem used`]);
    expect(read.problems.map((p) => p.reason)).to.deep.equal(['wrong-schema', 'wrong-schema']);
    expect(read.problems[0]?.detail).to.match(/character \d+: "1x" is no field value/);
    expect(valuesOf(read, 'memory.used_bytes')).to.deep.equal([1]);
  });
});

describe('Prometheus adapter decoder', () => {
  const sample = (at: number, name: string, value: number | string, labels: Record<string, string> = {}) => ({
    timestamp: new Date(t0 + at * 1000).toISOString(),
    value: String(value),
    name,
    labels: { __name__: name, cell: 'cell-a', instance: 'a:8080', ...labels },
  });
  const { prometheus, detect } = createDecoders();

  it('makes request rate, error ratio and latencies of a histogram that arrives one bucket per record', () => {
    const name = 'http_request_duration_seconds';
    const round = (n: number) => [
      sample(n * 10, `${name}_bucket`, n * 90, { le: '0.1', code: '200' }),
      sample(n * 10, `${name}_bucket`, n * 100, { le: '+Inf', code: '200' }),
      sample(n * 10, `${name}_count`, n * 90, { code: '200' }),
      sample(n * 10, `${name}_count`, n * 10, { code: '503' }),
    ];
    const read = readAll(createDecoders().detect, [0, 1, 2, 3].flatMap(round));
    expect(valuesOf(read, 'http.request_rate')).to.deep.equal([10, 10]);
    expect(valuesOf(read, 'http.error_ratio')).to.deep.equal([0.1, 0.1]);
    expect(valuesOf(read, 'http.latency_p50_s')[0]).to.be.closeTo(0.1 * (50 / 90), 1e-9);
    expect(valuesOf(read, 'http.latency_p99_s')).to.deep.equal([0.1, 0.1]);
  });

  it('computes the use of all CPUs together, and of memory from what is available', () => {
    const cpu = (n: number) =>
      ['0', '1'].flatMap((core) => [
        sample(n, 'node_cpu_seconds_total', n * (core === '0' ? 1 : 0.5), { cpu: core, mode: 'user' }),
        sample(n, 'node_cpu_seconds_total', n * (core === '0' ? 0 : 0.5), { cpu: core, mode: 'idle' }),
      ]);
    const memory = (n: number) => [
      sample(n, 'node_memory_MemTotal_bytes', 1000),
      sample(n, 'node_memory_MemAvailable_bytes', 400),
    ];
    const read = readAll(
      prometheus,
      [0, 10, 20, 30].flatMap((n) => [...cpu(n), ...memory(n)]),
    );
    expect(valuesOf(read, 'cpu.utilization')).to.deep.equal([0.75, 0.75]);
    expect(valuesOf(read, 'memory.used_bytes')).to.deep.equal([600, 600]);
  });

  it('takes a NaN as the end of a series and an infinity as a mistake', () => {
    const read = readAll(detect, [sample(0, 'process_open_fds', 'NaN'), sample(0, 'process_open_fds', '+Inf')]);
    expect(read.ignored['no-value']).to.equal(1);
    expect(read.problems.map((p) => p.reason)).to.deep.equal(['bad-value']);
  });
});

describe('Parts of a reading', () => {
  it('are handed out when all are in that were in it before, also out of order, and never short of one', () => {
    const rounds = new Rounds();
    const put = (part: string, atMs: number, value: number) => {
      const round = rounds.put('disks', part, atMs, value, 0);
      return typeof round === 'object' ? [...round.parts.values()] : round;
    };
    for (const at of [10, 20]) for (const part of ['a', 'b']) expect(put(part, at, at)).to.equal(undefined);
    put('a', 30, 1);
    put('a', 40, 3);
    expect(put('b', 40, 4)).to.deep.equal([3, 4]);
    // The rest of the older reading: overtaken, so it is no longer news.
    expect(put('b', 30, 2)).to.equal(undefined);
    expect(put('b', 40, 9)).to.equal('late');
    // A disk has gone: after two readings without it nobody waits for it any more.
    const seen = [50, 60, 70, 80].map((at) => put('a', at, at));
    expect(seen).to.deep.equal([undefined, undefined, undefined, [80]]);
  });

  it('begin anew when a clock is set back, and take bounded memory from endless names', () => {
    const rounds = new Rounds(100);
    for (let at = 1000; at < 1006; at++) rounds.put('g', 'p', at * 1000, 1, 0);
    const back = [1, 2, 3, 4].map((at) => rounds.put('g', 'p', at * 1000, at, 0));
    expect(back.map((r) => typeof r)).to.deep.equal(['undefined', 'undefined', 'object', 'object']);
    for (let i = 0; i < 10_000; i++) rounds.put(`group ${i % 500}`, `part ${i}`, i, i, 0);
    expect(rounds.size).to.be.at.most(100);
  });
});

describe('JSON mapping', () => {
  const map = jsonMapSchema.parse({
    records: '/items',
    cell: '/where/cell',
    instance: 'host',
    time: { path: '/ts', unit: 's' },
    pairs: { list: '/values', name: 'n', value: 'v' },
    metrics: [
      { metric: 'cpu.utilization', path: '/cpu/percent', scale: 0.01 },
      { metric: 'http.request_rate', path: '/requests', counter: true },
      { metric: 'http.error_ratio', path: '/failed', over: '/requests', counter: true },
      { metric: 'queue.depth', name: 'depth' },
    ],
  });
  const document = (ts: number, requests: number, failed: number, percent: unknown = 40) => ({
    where: { cell: 'cell-a' },
    items: [
      {
        ts,
        host: 'h1',
        cpu: { percent },
        requests,
        failed,
        values: [
          { n: 'depth', v: '7' },
          { n: 'other', v: 1 },
        ],
      },
    ],
  });

  it('reads paths, pairs, units, counters and ratios of two counters', () => {
    const read = readAll(createDecoders({ jsonMap: map })['json-map'], [
      document(seconds, 1000, 10),
      document(seconds + 10, 1200, 30),
    ]);
    expect(read.problems).to.deep.equal([]);
    expect(valuesOf(read, 'cpu.utilization')).to.deep.equal([0.4, 0.4]);
    expect(valuesOf(read, 'http.request_rate')).to.deep.equal([20]);
    expect(valuesOf(read, 'http.error_ratio')).to.deep.equal([0.1]);
    expect(valuesOf(read, 'queue.depth')).to.deep.equal([7, 7]);
    expect(read.ignored.unmapped).to.equal(2);
  });

  it('reaches nothing that an object does not own', () => {
    const sly = jsonMapSchema.parse({
      time: { path: 'constructor.length', unit: 's' },
      cell: '__proto__.polluted',
      metrics: [{ metric: 'fd.used', path: '/constructor/length' }],
    });
    const { samples } = createDecoders({ jsonMap: sly })['json-map'](
      Buffer.from('{"__proto__":{"polluted":"x"},"ts":1}'),
    );
    expect(samples).to.deep.equal([]);
    expect(({} as Record<string, unknown>)['polluted']).to.equal(undefined);
  });

  it('is refused by path when the settings are wrong', () => {
    const issues = (topic: object) =>
      telemetryTopicSchema.safeParse({ topic: 't', ...topic }).error?.issues.map((i) => i.path.join('.')) ?? [];
    expect(issues({ decoder: 'json-map' })).to.deep.equal(['jsonMap']);
    const jsonMap = { time: { path: 'ts' }, metrics: [{ metric: 'cpu.usage', path: 'a' }] };
    expect(issues({ decoder: 'json-map', jsonMap })).to.deep.equal(['jsonMap.metrics.0.metric']);
    expect(issues({ identity: [{ kind: 'attribute', name: 'host', pattern: '(?<cell>' }] })).to.deep.equal([
      'identity.0.pattern',
    ]);
  });
});

describe('Identity of a cell', () => {
  const record = (host: string) => Buffer.from(`mem,host=${host} used=1i ${t0}000000`);
  const identify = (options: DecoderOptions, value = record('node-7'), context = {}) => {
    const { samples, problems } = createDecoders(options)['telegraf-influx'](value, context);
    return samples[0] ? `${samples[0].cell}/${samples[0].instance}` : problems[0]?.detail;
  };

  it('is taken from the first step that yields a name: key, header, pattern or constant', () => {
    const key = Buffer.from('cell-k|node-9');
    const headers = { 'x-cell': Buffer.from('cell-h') };
    const pattern = '^(?<cell>[^|]+)\\|(?<instance>.+)$';
    expect(identify({ identity: [{ kind: 'key', pattern, gives: 'cell' }] }, undefined, { key })).to.equal(
      'cell-k/node-9',
    );
    const steps: DecoderOptions['identity'] = [
      { kind: 'header', name: 'x-cell', gives: 'cell' },
      { kind: 'constant', cell: 'cell-c' },
    ];
    expect(identify({ identity: steps }, undefined, { headers })).to.equal('cell-h/node-7');
    expect(identify({ identity: steps })).to.equal('cell-c/node-7');
  });

  it('names all that was tried when nothing yields one', () => {
    expect(identify({})).to.match(/^mem: no cell by any of: attribute cell\.id, attribute cell, declared instance of /);
  });

  it('is looked up by the declared instances, and an address of several cells is nobody', async () => {
    const instance = (name: string, address: string) => ({ name, address, port: 8080 });
    const directory = new StoreCellDirectory({
      services: async () => [{ name: 's', spec: { slo: {} } } as never],
      cells: async () =>
        [
          {
            name: 'eu-1',
            service: 's',
            state: 'active',
            instances: [instance('node-7', '10.0.0.1'), instance('b', '127.0.0.1')],
          },
          {
            name: 'eu-2',
            service: 's',
            state: 'active',
            instances: [instance('c', '10.0.0.2'), instance('d', '127.0.0.1')],
          },
        ] as never,
    });
    await directory.refresh();
    const locate = (name: string) => directory.locate(name);
    expect(identify({ locate })).to.equal('eu-1/node-7');
    expect(identify({ locate }, record('10.0.0.2:9100'))).to.equal('eu-2/c');
    expect(identify({ locate }, record('127.0.0.1'))).to.match(/no cell/);
  });
});

describe('CloudEvents', () => {
  const own = {
    schema: 'understudy.telemetry/v1',
    cell: 'eu-1',
    instance: 'a',
    ts: new Date(t0).toISOString(),
    metrics: { 'fd.used': 3 },
  };
  const event = (rest: object) =>
    Buffer.from(JSON.stringify({ id: '1', type: 't', source: 's', ...rest, specversion: '1.0' }));
  const { detect } = createDecoders();

  it('are opened in structured and in binary mode, whatever format is inside', () => {
    expect(detect(event({ data: own })).samples).to.have.length(1);
    const protobuf = event({
      datacontenttype: 'application/x-protobuf',
      data_base64: golden('otlp.bin').toString('base64'),
    });
    expect(detect(protobuf).samples).to.deep.equal(createDecoders().detect(golden('otlp.bin')).samples);
    const headers = { ce_specversion: Buffer.from('1.0'), 'content-type': 'application/json' };
    expect(detect(Buffer.from(JSON.stringify(own)), { headers }).samples).to.have.length(1);
  });

  it('without data are refused', () => {
    expect(detect(event({})).problems.map((p) => p.reason)).to.deep.equal(['wrong-schema']);
    expect(detect(event({ data_base64: '' })).problems.map((p) => p.reason)).to.deep.equal(['empty']);
  });
});

describe('OTLP beyond the SDK', () => {
  const point = (atMs: number, attributes: Record<string, string>, rest: object) => ({
    attributes: Object.entries(attributes).map(([key, stringValue]) => ({ key, value: { stringValue } })),
    timeUnixNano: `${atMs}000000`,
    startTimeUnixNano: `${t0}000000`,
    ...rest,
  });
  const request = (...metrics: object[]) => ({
    resourceMetrics: [
      {
        resource: {
          attributes: [
            { key: 'cell.id', value: { stringValue: 'eu-1' } },
            { key: 'host.name', value: { stringValue: 'h' } },
          ],
        },
        scopeMetrics: [{ metrics }],
      },
    ],
  });

  it('converts declared units and refuses those of another kind', () => {
    const gauge = (name: string, unit: string, asDouble: number) => ({
      name,
      unit,
      gauge: { dataPoints: [point(t0, {}, { asDouble })] },
    });
    const read = readAll(createDecoders().otlp, [
      request(gauge('nodejs.eventloop.delay.p99', 'ms', 20), gauge('process.memory.usage', 'MiBy', 2)),
      request(gauge('process.memory.usage', 's', 2), gauge('cpu.utilization', '', 93)),
    ]);
    expect(valuesOf(read, 'event_loop.delay_p99_s')).to.deep.equal([0.02]);
    expect(valuesOf(read, 'memory.used_bytes')).to.deep.equal([2 * 1024 * 1024]);
    expect(read.problems.map((p) => p.reason)).to.deep.equal(['bad-unit', 'out-of-range']);
  });

  it('reads exponential histograms, delta and cumulative, and leaves summaries out by name', () => {
    // Scale 0: bucket -4 holds 1/16 to 1/8 s.
    const histogram = (atMs: number, n: number, aggregationTemporality: number) => ({
      name: 'http.server.request.duration',
      unit: 's',
      exponentialHistogram: {
        aggregationTemporality,
        dataPoints: [
          point(
            atMs,
            {},
            { count: n, sum: n / 10, scale: 0, zeroCount: 0, positive: { offset: -4, bucketCounts: [n] } },
          ),
        ],
      },
    });
    for (const [temporality, counts] of [
      [2, [100, 300]],
      [1, [100, 200]],
    ] as const) {
      const read = readAll(createDecoders().otlp, [
        request(histogram(t0 + 10_000, counts[0], temporality)),
        request(histogram(t0 + 20_000, counts[1], temporality), { name: 'process.memory.usage', summary: {} }),
      ]);
      expect(valuesOf(read, 'http.latency_p50_s').at(-1)).to.be.within(1 / 16, 1 / 8);
      expect(read.ignored.summary).to.equal(1);
      expect(valuesOf(read, 'http.request_rate').at(-1)).to.equal(temporality === 2 ? 20 : 10);
    }
  });

  it("adds up the Collector's memory states without counting slab twice", () => {
    const states = { used: 50, free: 30, cached: 15, buffered: 5, slab_reclaimable: 9, slab_unreclaimable: 4 };
    const dataPoints = Object.entries(states).map(([state, asInt]) => point(t0, { state }, { asInt }));
    const read = readAll(createDecoders().otlp, [
      request({ name: 'system.memory.usage', unit: 'By', sum: { aggregationTemporality: 2, dataPoints } }),
    ]);
    expect(valuesOf(read, 'memory.limit_bytes')).to.deep.equal([100]);
  });
});
