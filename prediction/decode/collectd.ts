/** Decodes what collectd's write_kafka writes with `Format JSON`: lists of value lists. */
import { isRealInterface, isWholeDisk } from './devices';
import type { Assembler, Route } from './assembler';
import { guarded, isTime, rejected, type Decoder } from './decoder';
import type { Resolver } from './identity';
import { isObject, numeric, own, text, type JsonObject } from './json';
import { SampleSink } from './sink';

interface ValueList {
  plugin: string;
  /** Device, CPU, file system. */
  owner: string;
  type: string;
  /** State or kind. */
  kind: string;
}

type Rule = (list: ValueList, dsname: string) => Route | undefined;

const cpu: Rule = ({ owner, kind }) => ({ group: 'cpu', role: kind, owner });
const onDisk =
  (dsname: string, role: string, scale = 1): Rule =>
  ({ owner }, name) =>
    name === dsname && isWholeDisk(owner) ? { group: 'disk', role, owner, scale } : undefined;

/**
 * What is read, by `plugin/type`. Anything else is ignored. Counters need no word here: write_kafka sends their rates
 * (`StoreRates true`, its default), and where it is told not to, `dstypes` says what has to become one.
 */
const rules: Readonly<Record<string, Rule>> = {
  'cpu/percent': cpu,
  // Without ValuesPercentage: jiffies, of which only the proportions matter.
  'cpu/cpu': cpu,
  'memory/memory': ({ kind }) => ({ group: 'memory', role: kind }),
  'df/df_complex': ({ owner, kind }) =>
    kind === 'used' || kind === 'free' ? { group: 'filesystem', role: kind, owner } : undefined,
  'interface/if_octets': ({ owner }, name) =>
    isRealInterface(owner) ? { group: 'network', role: name === 'rx' ? 'receive' : 'transmit', owner } : undefined,
  'disk/disk_octets': onDisk('write', 'write_rate'),
  // collectd gives the mean time of a write in ms, the busy time in ms per second.
  'disk/disk_time': onDisk('write', 'write_latency', 1e-3),
  'disk/disk_io_time': onDisk('io_time', 'busy', 1e-3),
  'protocols/protocol_counter': ({ owner, kind }) => {
    if (owner !== 'Tcp') return undefined;
    if (kind === 'RetransSegs') return { group: 'tcp', role: 'retransmitted' };
    return kind === 'OutSegs' ? { group: 'tcp', role: 'sent' } : undefined;
  },
  'processes/file_handles': ({ owner }) => ({ group: 'fd.used', owner }),
  'ping/ping': ({ kind }) => ({ group: 'network.rtt_s', owner: kind, scale: 1e-3 }),
  'nginx/nginx_requests': ({ owner }) => ({ group: 'http.request_rate', owner }),
  'apache/apache_requests': ({ owner }) => ({ group: 'http.request_rate', owner }),
};

/** `storeRates` as in write_kafka's configuration: the bytes do not tell a rate from a count. */
export function createCollectdDecoder(
  assembler: Assembler,
  resolve: Resolver,
  { storeRates = true }: { storeRates?: boolean } = {},
): Decoder {
  const decode: Decoder = (value, record) => {
    let parsed: unknown;
    try {
      parsed = JSON.parse(value.toString('utf8'));
    } catch (error) {
      return rejected('not-json', error instanceof Error ? error.message : String(error));
    }
    const lists = Array.isArray(parsed) ? parsed : [parsed];
    const sink = new SampleSink();
    lists.forEach((list: unknown, index) => {
      if (isObject(list)) readList(list, `[${index}]`);
      else sink.object('wrong-schema', `[${index}]: a value list must be an object`);
    });
    return sink.result();

    function readList(list: JsonObject, where: string): void {
      const values = own(list, 'values');
      const names = own(list, 'dsnames');
      const plugin = text(own(list, 'plugin'));
      const type = text(own(list, 'type'));
      if (!Array.isArray(values) || !Array.isArray(names) || plugin === undefined || type === undefined) {
        return sink.object('wrong-schema', `${where}: plugin, type, values and dsnames are needed`);
      }
      const source = `${plugin}/${type}`;
      const rule = Object.hasOwn(rules, source) ? rules[source] : undefined;
      if (!rule) return sink.ignore('unmapped', values.length);
      const atMs = (numeric(own(list, 'time')) ?? NaN) * 1e3;
      if (!isTime(atMs)) return sink.object('bad-time', `${where} ${source}: time must be seconds since 1970`);
      const id = resolve((name) => text(own(list, name)) ?? metaText(list, name), record, sink, `${where} ${source}`);
      if (!id) return;
      const about: ValueList = {
        plugin,
        type,
        owner: text(own(list, 'plugin_instance')) ?? '',
        kind: text(own(list, 'type_instance')) ?? '',
      };
      const intervalMs = (numeric(own(list, 'interval')) ?? 0) * 1e3;
      // One reading is stamped over some milliseconds; half an interval away begins another.
      const toleranceMs = intervalMs > 0 && intervalMs < 3_600_000 ? intervalMs / 2 : 0;
      const types = own(list, 'dstypes');
      values.forEach((reading: unknown, i) => {
        const dsname = text(names[i]) ?? '';
        const route = rule(about, dsname);
        if (!route) return sink.ignore('unmapped');
        const number = reading === null ? NaN : numeric(reading);
        if (number === undefined || Math.abs(number) === Infinity) {
          return sink.object('bad-value', `${where} ${source}.${dsname}: ${JSON.stringify(reading)} is no number`);
        }
        if (Number.isNaN(number)) sink.ignore('no-value');
        const kind = !storeRates && Array.isArray(types) ? (types[i] as unknown) : undefined;
        const counter = kind === 'derive' || kind === 'counter';
        assembler.add(sink, id, counter ? { ...route, counter } : route, source, atMs, number, toleranceMs);
      });
    }
  };
  return guarded(decode, 'wrong-schema');
}

function metaText(list: JsonObject, name: string): string | undefined {
  const meta = own(list, 'meta');
  return isObject(meta) ? text(own(meta, name)) : undefined;
}
