/** Chooses the decoder of a record: by the configured name, or by the record's first bytes and keys. */
import type { JsonMap, decoderNames, telemetryTopicSchema } from '../../blueprints/telemetry-settings';
import type { z } from 'zod';
import { Assembler } from './assembler';
import { CloudEventError, unwrap } from './cloud-events';
import { createCollectdDecoder } from './collectd';
import { guarded, rejected, type Decoder } from './decoder';
import { createResolver, type Locate } from './identity';
import { createJsonMapDecoder } from './json-map';
import { createOtlpDecoder } from './otlp';
import { createPrometheusDecoder } from './prometheus';
import { SeriesStore } from './series';
import { createTelegrafInfluxDecoder, createTelegrafJsonDecoder } from './telegraf';
import { decodeUnderstudyJson, understudySchema } from './understudy-json';

export type DecoderName = (typeof decoderNames)[number];

/** What a topic's settings say about how it is read. */
export type TopicReading = Partial<Omit<z.infer<typeof telemetryTopicSchema>, 'topic' | 'decoder'>>;

export interface DecoderOptions extends TopicReading {
  /** Memory of cumulative series, which several decoders may share. */
  series?: SeriesStore;
  assembler?: Assembler;
  locate?: Locate | undefined;
}

/** Every decoder by its configured name; they share one memory of counters and unfinished readings. */
export function createDecoders(options: DecoderOptions = {}): Record<DecoderName, Decoder> {
  const {
    series = new SeriesStore(),
    assembler = new Assembler(series),
    identity,
    locate,
    collectd,
    jsonMap,
  } = options;
  const resolve = createResolver(identity, locate);
  const plain = {
    otlp: createOtlpDecoder(series, resolve),
    'understudy-json': decodeUnderstudyJson,
    collectd: createCollectdDecoder(assembler, resolve, collectd),
    'telegraf-json': createTelegrafJsonDecoder(assembler, resolve),
    'telegraf-influx': createTelegrafInfluxDecoder(assembler, resolve),
    prometheus: createPrometheusDecoder(assembler, resolve),
    'json-map': jsonMapDecoder(jsonMap, assembler, resolve),
  } satisfies Partial<Record<DecoderName, Decoder>>;
  const detect: Decoder = (value, record) => {
    const name = formatOf(value);
    if (name) return plain[name](value, record);
    return rejected(
      'unknown-format',
      'none of OTLP, understudy.telemetry/v1, collectd, Telegraf (JSON or influx line), Prometheus adapter; other JSON needs decoder json-map',
    );
  };
  const opened = (decoder: Decoder) => guarded(opening(decoder, plain.otlp), 'wrong-schema');
  return {
    otlp: opened(plain.otlp),
    'understudy-json': opened(plain['understudy-json']),
    collectd: opened(plain.collectd),
    'telegraf-json': opened(plain['telegraf-json']),
    'telegraf-influx': opened(plain['telegraf-influx']),
    prometheus: opened(plain.prometheus),
    'json-map': opened(plain['json-map']),
    detect: opened(detect),
  };
}

function jsonMapDecoder(map: JsonMap | undefined, assembler: Assembler, resolve: ReturnType<typeof createResolver>) {
  if (map) return createJsonMapDecoder(map, assembler, resolve);
  const missing: Decoder = () => rejected('unknown-format', 'decoder json-map needs a jsonMap in the settings');
  return missing;
}

function opening(decode: Decoder, otlp: Decoder): Decoder {
  return (value, record) => {
    if (value.length === 0) return rejected('empty', 'the record has no value');
    try {
      const { value: data, contentType } = unwrap(value, record);
      if (data.length === 0) return rejected('empty', 'the CloudEvent has no data');
      return contentType?.includes('protobuf') ? otlp(data, record) : decode(data, record);
    } catch (error) {
      if (error instanceof CloudEventError) return rejected('wrong-schema', error.message);
      throw error;
    }
  };
}

const [openBrace, openBracket, lineFeed, del] = [0x7b, 0x5b, 0x0a, 0x7f];

/** By the first byte and a key that the format cannot be without; no parse is spent on telling formats apart. */
function formatOf(value: Buffer): Exclude<DecoderName, 'detect' | 'json-map'> | undefined {
  const first = value[0] ?? 0;
  // Field 1 of the request, length-delimited: a line feed begins no other format.
  if (first === lineFeed) return 'otlp';
  if (first === openBrace || first === openBracket) {
    const has = (key: string) => value.includes(key);
    if (has(understudySchema)) return 'understudy-json';
    if (has('"resourceMetrics"')) return 'otlp';
    if (has('"dsnames"')) return 'collectd';
    if (has('"fields"') && has('"name"')) return 'telegraf-json';
    if (has('"labels"') && has('"name"') && has('"value"')) return 'prometheus';
    return undefined;
  }
  return first > 0x20 && first !== del && value.includes(0x3d) ? 'telegraf-influx' : undefined;
}
