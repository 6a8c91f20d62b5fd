/** Decodes OTLP metrics requests (protobuf and JSON) into canonical samples. */
import { guarded, problem, rejected, type DecodeProblem, type Decoder } from './decoder';
import { createResolver, type Resolver } from './identity';
import { mapResource } from './otlp-mapping';
import { attributesOf, object, objects, readProtobuf, type Loose } from './otlp-wire';
import { SeriesStore } from './series';
import { SampleSink } from './sink';

function readRequest(value: Buffer): Loose | DecodeProblem {
  if (value[0] === 0x7b) {
    try {
      return object(JSON.parse(value.toString('utf8'))) ?? problem('wrong-schema', 'expected a JSON object');
    } catch (error) {
      return problem('not-json', error instanceof Error ? error.message : String(error));
    }
  }
  try {
    return readProtobuf(value);
  } catch (error) {
    return problem('not-protobuf', error instanceof Error ? error.message : String(error));
  }
}

/**
 * A decoder with its own memory of cumulative series; samples become available from a series' second export on.
 * A resource whose cell or instance cannot be told is a problem of its own and leaves the others untouched.
 */
export function createOtlpDecoder(
  series: SeriesStore = new SeriesStore(),
  resolve: Resolver = createResolver(),
): Decoder {
  const decode: Decoder = (value, record) => {
    const request = readRequest(value);
    if ('reason' in request && typeof request.reason === 'string') {
      return { samples: [], problems: [request as unknown as DecodeProblem], ignored: {} };
    }
    const resources = objects((request as Loose).resourceMetrics);
    if (resources.length === 0) return rejected('empty', 'no resourceMetrics in the request');
    const sink = new SampleSink();
    resources.forEach((resourceMetrics, index) => {
      const attributes = attributesOf(object(resourceMetrics.resource)?.attributes);
      const where = `resourceMetrics[${index}]`;
      const id = resolve((name) => attributes.get(name), record, sink, where);
      if (id) mapResource({ id, where, series, sink }, resourceMetrics);
    });
    return sink.result();
  };
  return guarded(decode, 'wrong-schema');
}
