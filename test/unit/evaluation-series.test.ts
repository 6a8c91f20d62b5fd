import { expect } from 'chai';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { parseIncident, readIncidentSpans } from '../../models/evaluation/incidents';
import { readTelemetry, type TelemetryOptions } from '../../models/evaluation/telemetry-file';

const startMs = Date.parse('2026-11-22T06:00:00.000Z');

function record(second: number, change: Record<string, unknown> = {}): string {
  return JSON.stringify({
    schema: 'understudy.telemetry/v1',
    cell: 'eu-1',
    instance: 'eu-1-a',
    ts: new Date(startMs + 1000 * second).toISOString(),
    metrics: { 'cpu.utilization': second / 100 },
    ...change,
  });
}

async function rejection(attempt: Promise<unknown>): Promise<string> {
  return attempt.then(
    () => 'it was accepted',
    (error: Error) => error.message,
  );
}

describe('Telemetry files', () => {
  let dir: string;
  beforeEach(() => (dir = mkdtempSync(join(tmpdir(), 'understudy-evaluation-'))));
  afterEach(() => rmSync(dir, { recursive: true }));

  const file = (lines: readonly string[], name = 'telemetry.ndjson'): string => {
    const text = lines.map((line) => `${line}\n`).join('');
    const packed = name.endsWith('.gz') ? gzipSync(text) : name.endsWith('.br') ? brotliCompressSync(text) : text;
    writeFileSync(join(dir, name), packed);
    return join(dir, name);
  };
  const read = (lines: readonly string[], options: TelemetryOptions = {}, name?: string) =>
    readTelemetry(file(lines, name), options);

  it('become one series per cell, plain, gzipped or in brotli, at the interval their records show', async () => {
    const lines = [0, 10, 20, 30, 40].map((s) => record(s));
    for (const name of ['a.ndjson', 'a.ndjson.gz', 'a.ndjson.br']) {
      const { cells } = await read(lines, {}, name);
      expect(cells.map((c) => [c.cell, c.stepMs, c.ticks])).to.deep.equal([['eu-1', 10_000, 5]]);
      expect([...(cells[0]?.values.get('cpu.utilization') ?? [])]).to.deep.equal([0, 0.1, 0.2, 0.3, 0.4]);
    }
  });

  it('say their interval and service themselves, and an option overrules', async () => {
    const lines = [0, 7, 14].map((s) => record(s, { interval_s: 5, attrs: { service: 'shop' } }));
    expect((await read(lines)).cells[0]).to.include({ stepMs: 5000, service: 'shop' });
    expect((await read(lines, { stepMs: 1000 })).cells[0]).to.include({ stepMs: 1000, ticks: 15 });
  });

  it('tell the interval although two producers speak of one instance', async () => {
    const lines = [0, 1, 2, 3].flatMap((s) => [
      record(s + 0.1),
      record(s + 0.4, { metrics: { 'memory.used_bytes': 1 } }),
    ]);
    expect((await read(lines)).cells[0]).to.include({ stepMs: 1000 });
  });

  it('put instances together by the metric, hold a value for three steps, and may come out of order', async () => {
    const lines = [
      record(1, { metrics: { 'cpu.utilization': 0.5, 'http.request_rate': 3 } }),
      record(0, { metrics: { 'cpu.utilization': 0.4, 'http.request_rate': 2 } }),
      record(0, { instance: 'eu-1-b', metrics: { 'cpu.utilization': 0.9, 'http.request_rate': 10 } }),
      record(5, { metrics: { 'cpu.utilization': 0.1 } }),
    ];
    const [cell] = (await read(lines, { stepMs: 1000, sloLatencyMs: 250 })).cells;
    expect([...(cell?.values.get('cpu.utilization') ?? [])]).to.deep.equal([0.9, 0.9, 0.9, 0.5, NaN, 0.1]);
    expect([...(cell?.values.get('http.request_rate') ?? [])]).to.deep.equal([12, 13, 13, 3, NaN, NaN]);
    expect(cell?.sloLatencyS).to.equal(0.25);
    expect([...(cell?.samples() ?? [])].map((s) => s.atMs - startMs)).to.deep.equal([0, 0, 0, 0, 1000, 1000, 5000]);
  });

  it('with a broken line here and there are read, and the line is named; with many they are refused', async () => {
    const good = Array.from({ length: 200 }, (_, s) => record(s));
    const { refusedLines, refusals, cells } = await read([...good.slice(0, 2), '{"schema":', ...good.slice(2)]);
    expect(refusedLines).to.equal(1);
    expect(refusals[0]).to.contain('telemetry.ndjson:3: ');
    expect(cells[0]?.ticks).to.equal(200);
    expect(await rejection(read(['nonsense', record(0)]))).to.match(/1 of 2 lines could not be understood:\n.*:1: /);
  });

  it('without anything to evaluate are refused with a reason', async () => {
    expect(await rejection(read([]))).to.contain('empty; expected telemetry');
    expect(await rejection(read([record(0, { metrics: { foreign: 1 } })]))).to.contain('no value of a metric');
    expect(await rejection(read([record(0)]))).to.contain('give it with --step');
    expect(await rejection(read([record(0)], { decoder: 'guess' }))).to.contain('expected one of');
    expect(await rejection(readTelemetry(join(dir, 'absent')))).to.contain('cannot be read');
    const lost = [record(0), record(1, { ts: '2024-01-01T00:00:00Z' })];
    expect(await rejection(read(lost, { stepMs: 1000 }))).to.contain('a timestamp is wrong, or --step is');
  });

  it('of OTLP JSON lines are decoded as the scoring worker decodes them', async () => {
    const otlp = (second: number): string =>
      JSON.stringify({
        resourceMetrics: [
          {
            resource: {
              attributes: [
                { key: 'cell.id', value: { stringValue: 'eu-2' } },
                { key: 'service.instance.id', value: { stringValue: 'eu-2-a' } },
                { key: 'service.name', value: { stringValue: 'shop' } },
              ],
            },
            scopeMetrics: [
              {
                metrics: [
                  {
                    name: 'process.cpu.utilization',
                    unit: '1',
                    gauge: { dataPoints: [{ timeUnixNano: `${startMs + 1000 * second}000000`, asDouble: 0.25 }] },
                  },
                ],
              },
            ],
          },
        ],
      });
    const { cells } = await read([0, 1, 2].map(otlp));
    expect(cells[0]).to.include({ cell: 'eu-2', service: 'shop', stepMs: 1000, ticks: 3 });
  });

  describe('of incidents', () => {
    const incident = {
      cell: 'eu-1',
      fault: 'memory-leak',
      fault_start: '2026-11-22T06:00:00Z',
      onset: '2026-11-22T06:10:00Z',
      recovered: null,
      predictable: true,
    };

    it('are read; one that still lasts never recovers', async () => {
      const [read] = await readIncidentSpans(file([JSON.stringify(incident)]));
      expect(read).to.include({ onsetMs: startMs + 600_000, recoveredMs: Infinity, predictable: true });
    });

    it('are refused with file, line and field when anything is wrong', async () => {
      const wrong = (change: object): string => JSON.stringify({ ...incident, ...change });
      for (const [change, reason] of [
        [{ onset: 'soon' }, 'onset is "soon", expected ISO 8601'],
        [{ fault_start: '2026-11-22T07:00:00Z' }, 'fault_start lies after onset'],
        [{ recovered: '2026-11-22T06:09:00Z' }, 'recovered lies before onset'],
        [{ predictable: 'yes' }, 'predictable'],
        [{ cell: '' }, 'cell'],
      ] as const) {
        const message = await rejection(readIncidentSpans(file([wrong({}), wrong(change)], 'incidents.ndjson')));
        expect(message).to.contain('incidents.ndjson:2: ').and.to.contain(reason);
      }
      expect(() => parseIncident('{', 'x:1')).to.throw('x:1: not JSON');
    });
  });
});
