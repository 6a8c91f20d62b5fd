/** Decodes what prometheus-kafka-adapter writes as JSON: one sample of one series per record, its value as text. */
import type { Assembler } from './assembler';
import { guarded, isTime, rejected, type Decoder } from './decoder';
import type { Resolver } from './identity';
import { epochMillis, isObject, numeric, own, text, type JsonObject } from './json';
import { isPrometheusSeries, routeOf } from './prometheus-mapping';
import { SampleSink } from './sink';

export function createPrometheusDecoder(assembler: Assembler, resolve: Resolver): Decoder {
  const decode: Decoder = (value, record) => {
    let parsed: unknown;
    try {
      parsed = JSON.parse(value.toString('utf8'));
    } catch (error) {
      return rejected('not-json', error instanceof Error ? error.message : String(error));
    }
    const sink = new SampleSink();
    const items: unknown[] = Array.isArray(parsed) ? parsed : [parsed];
    items.forEach((item, index) => {
      if (isObject(item)) readSample(item, `[${index}]`);
      else sink.object('wrong-schema', `[${index}]: a sample must be an object`);
    });
    return sink.result();

    function readSample(sample: JsonObject, where: string): void {
      const labels = own(sample, 'labels');
      const name = text(own(sample, 'name'));
      if (!isObject(labels) || name === undefined) {
        return sink.object('wrong-schema', `${where}: name and labels are needed`);
      }
      if (!isPrometheusSeries(name)) return sink.ignore('unmapped');
      const label = (key: string) => text(own(labels, key));
      const every = () => JSON.stringify(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)));
      const route = routeOf(name, label, every);
      if (!route) return sink.ignore('unmapped');
      const stamp = own(sample, 'timestamp');
      const atMs = typeof stamp === 'string' ? Date.parse(stamp) : epochMillis(numeric(stamp) ?? NaN);
      if (!isTime(atMs)) return sink.object('bad-time', `${name}: timestamp is ${JSON.stringify(stamp)}`);
      const number = numeric(own(sample, 'value'));
      if (number === undefined || Math.abs(number) === Infinity) {
        return sink.object('bad-value', `${name}: value is ${JSON.stringify(own(sample, 'value'))}`);
      }
      const id = resolve(label, record, sink, name);
      if (!id) return;
      // Prometheus ends a series that has gone with a NaN.
      if (Number.isNaN(number)) return sink.ignore('no-value');
      if (name === 'process_start_time_seconds') sink.emit(id, atMs, 'process.uptime_s', atMs / 1e3 - number, name);
      else assembler.add(sink, id, route, name, atMs, number);
    }
  };
  return guarded(decode, 'wrong-schema');
}
