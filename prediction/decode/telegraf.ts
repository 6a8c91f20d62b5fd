/** Decodes what Telegraf's outputs.kafka writes: influx line protocol (its default) and JSON. */
import type { Assembler } from './assembler';
import { guarded, rejected, type Decoder } from './decoder';
import type { Resolver } from './identity';
import { readInfluxLines } from './influx-line';
import { epochMillis, isObject, numeric, own, text, type JsonObject } from './json';
import { SampleSink } from './sink';
import { isTelegrafMeasurement, mapTelegraf } from './telegraf-mapping';

export function createTelegrafInfluxDecoder(assembler: Assembler, resolve: Resolver): Decoder {
  const decode: Decoder = (value, record) => {
    const sink = new SampleSink();
    const unwanted = readInfluxLines(
      value.toString('utf8'),
      isTelegrafMeasurement,
      ({ measurement, tags, fields, nanos }) => {
        const atMs = nanos === undefined ? (record?.timestampMs ?? NaN) : nanos / 1e6;
        const metric = { name: measurement, tags: (name: string) => tags.get(name), fields, atMs };
        mapTelegraf(assembler, resolve, sink, record, metric);
      },
      (reason) => sink.object('wrong-schema', `influx line: ${reason}`),
    );
    if (unwanted > 0) sink.ignore('unmapped', unwanted);
    return sink.result();
  };
  return guarded(decode, 'wrong-schema');
}

export function createTelegrafJsonDecoder(assembler: Assembler, resolve: Resolver): Decoder {
  const decode: Decoder = (value, record) => {
    let parsed: unknown;
    try {
      parsed = JSON.parse(value.toString('utf8'));
    } catch (error) {
      return rejected('not-json', error instanceof Error ? error.message : String(error));
    }
    const sink = new SampleSink();
    const batch = isObject(parsed) ? own(parsed, 'metrics') : parsed;
    const metrics: unknown[] = Array.isArray(batch) ? batch : [parsed];
    metrics.forEach((metric, index) => {
      if (isObject(metric)) readMetric(metric, `metrics[${index}]`);
      else sink.object('wrong-schema', `metrics[${index}]: a metric must be an object`);
    });
    return sink.result();

    function readMetric(metric: JsonObject, where: string): void {
      const name = own(metric, 'name');
      const fields = own(metric, 'fields');
      const tags = own(metric, 'tags') ?? {};
      if (typeof name !== 'string' || !isObject(fields) || !isObject(tags)) {
        return sink.object('wrong-schema', `${where}: name, fields and tags are needed`);
      }
      if (!isTelegrafMeasurement(name)) return sink.ignore('unmapped', Object.keys(fields).length);
      const numbers = new Map<string, number>();
      for (const [field, fieldValue] of Object.entries(fields)) {
        if (typeof fieldValue === 'number') numbers.set(field, fieldValue);
      }
      const atMs = epochMillis(numeric(own(metric, 'timestamp')) ?? NaN);
      const tag = (key: string) => text(own(tags, key));
      mapTelegraf(assembler, resolve, sink, record, { name, tags: tag, fields: numbers, atMs });
    }
  };
  return guarded(decode, 'wrong-schema');
}
