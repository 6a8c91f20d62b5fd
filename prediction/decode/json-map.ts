/** Decodes any other JSON by a mapping from the settings: paths to cell, instance, time and metrics. */
import type { JsonMap } from '../../blueprints/telemetry-settings';
import type { MetricName } from '../metrics';
import type { Assembler } from './assembler';
import { guarded, isName, isTime, rejected, type Decoder, type RecordContext } from './decoder';
import type { Resolver } from './identity';
import { isObject, numeric, text } from './json';
import { parsePath, valueAt, type JsonPath } from './json-path';
import { SampleSink, type Identity } from './sink';

const millisPer = { s: 1e3, ms: 1, us: 1e-3, ns: 1e-6 } as const;

interface MetricMap {
  metric: MetricName;
  /** Its name in the record, for state and problems. */
  source: string;
  read: (record: unknown, pairs: ReadonlyMap<string, unknown>) => unknown;
  readOver: ((record: unknown, pairs: ReadonlyMap<string, unknown>) => unknown) | undefined;
  scale: number;
  offset: number;
  counter: boolean;
}

export function createJsonMapDecoder(map: JsonMap, assembler: Assembler, resolve: Resolver): Decoder {
  const records = map.records === undefined ? undefined : parsePath(map.records);
  const time = { path: parsePath(map.time.path), unit: map.time.unit };
  const cellPath = map.cell === undefined ? undefined : parsePath(map.cell);
  const instancePath = map.instance === undefined ? undefined : parsePath(map.instance);
  const pairs = map.pairs && {
    list: parsePath(map.pairs.list),
    name: parsePath(map.pairs.name),
    value: parsePath(map.pairs.value),
  };
  const mapped = map.metrics.map(metricMap);

  const decode: Decoder = (value, record) => {
    let parsed: unknown;
    try {
      parsed = JSON.parse(value.toString('utf8'));
    } catch (error) {
      return rejected('not-json', error instanceof Error ? error.message : String(error));
    }
    const listed = records ? valueAt(parsed, records) : parsed;
    if (records && !Array.isArray(listed)) {
      return rejected('wrong-schema', `${map.records}: expected a list of records, found ${kindOf(listed)}`);
    }
    const sink = new SampleSink();
    const items: unknown[] = Array.isArray(listed) ? listed : [listed];
    items.forEach((item, index) => {
      const where = Array.isArray(listed) ? `${map.records ?? ''}[${index}]` : 'the record';
      if (isObject(item)) readRecord(sink, record, item, parsed, where);
      else sink.object('wrong-schema', `${where}: expected an object, found ${kindOf(item)}`);
    });
    return sink.result();
  };

  function readRecord(
    sink: SampleSink,
    context: RecordContext | undefined,
    item: unknown,
    all: unknown,
    where: string,
  ) {
    // A list's items may leave to the document what they have in common.
    const find = (path: JsonPath) => valueAt(item, path) ?? valueAt(all, path);
    const atMs = timeOf(find(time.path), time.unit);
    if (!isTime(atMs)) {
      return sink.object('bad-time', `${where}: ${map.time.path} is ${brief(find(time.path))}, expected ${time.unit}`);
    }
    const fields = (name: string) => text(find(parsePath(name))) ?? (isObject(item) ? text(item[name]) : undefined);
    const named = {
      cell: cellPath && text(find(cellPath)),
      instance: instancePath && text(find(instancePath)),
    };
    const id = identityOf(named, () =>
      resolve(
        (name) => (name === 'instance' && isName(named.instance) ? named.instance : fields(name)),
        context,
        sink,
        where,
      ),
    );
    if (!id) return;
    const values = pairsOf(item);
    let unmapped = values.size;
    for (const metric of mapped) {
      const raw = metric.read(item, values);
      if (values.has(metric.source)) unmapped -= 1;
      if (raw !== undefined) readMetric(sink, id, metric, raw, metric.readOver?.(item, values), atMs);
    }
    if (unmapped > 0) sink.ignore('unmapped', unmapped);
  }

  function pairsOf(item: unknown): Map<string, unknown> {
    const found = new Map<string, unknown>();
    const list = pairs && valueAt(item, pairs.list);
    if (!pairs || !Array.isArray(list)) return found;
    for (const pair of list) {
      const name = text(valueAt(pair, pairs.name));
      if (name !== undefined && !found.has(name)) found.set(name, valueAt(pair, pairs.value));
    }
    return found;
  }

  function readMetric(
    sink: SampleSink,
    id: Identity,
    metric: MetricMap,
    raw: unknown,
    rawOver: unknown,
    atMs: number,
  ): void {
    const { source, scale, offset, counter } = metric;
    if (raw === null) return sink.ignore('no-value');
    let value: number | undefined = numeric(raw);
    if (value === undefined) return sink.object('bad-value', `${source} is ${brief(raw)}, expected a number`);
    if (counter) value = assembler.rate(sink, id, `${metric.metric} ${source}`, atMs, value);
    if (metric.readOver) {
      let over = numeric(rawOver);
      if (over === undefined) return sink.object('bad-value', `${source}: what it is divided by is ${brief(rawOver)}`);
      if (counter) over = assembler.rate(sink, id, `${metric.metric} ${source} over`, atMs, over);
      // A share of nothing is missing, not zero.
      if (over === undefined || over === 0) return;
      value = value === undefined ? undefined : value / over;
    }
    if (value !== undefined) sink.emit(id, atMs, metric.metric, value * scale + offset, source);
  }

  return guarded(decode, 'wrong-schema');
}

/** The mapping's own names go before whatever else is configured. */
function identityOf(
  named: { cell: string | undefined; instance: string | undefined },
  resolve: () => Identity | undefined,
): Identity | undefined {
  if (isName(named.cell) && isName(named.instance)) return { cell: named.cell, instance: named.instance };
  const found = resolve();
  if (!found) return undefined;
  return { cell: isName(named.cell) ? named.cell : found.cell, instance: named.instance ?? found.instance };
}

function metricMap(map: JsonMap['metrics'][number]): MetricMap {
  const { metric, path, name, over, scale, offset, counter } = map;
  const reader = (at: string): MetricMap['read'] => {
    if (name !== undefined) return (_record, pairs) => pairs.get(at);
    const parsed = parsePath(at);
    return (record) => valueAt(record, parsed);
  };
  const source = name ?? path ?? '';
  return {
    metric: metric as MetricName,
    source,
    read: reader(source),
    readOver: over === undefined ? undefined : reader(over),
    scale,
    offset,
    counter,
  };
}

function timeOf(value: unknown, unit: JsonMap['time']['unit']): number {
  if (unit === 'iso') return typeof value === 'string' ? Date.parse(value) : NaN;
  return (numeric(value) ?? NaN) * millisPer[unit];
}

const kindOf = (value: unknown) => (value === null ? 'null' : Array.isArray(value) ? 'a list' : typeof value);
const brief = (value: unknown) =>
  (isObject(value) || Array.isArray(value) ? kindOf(value) : (JSON.stringify(value) ?? 'missing')).slice(0, 60);
