/** Decodes OTLP metrics requests (protobuf and JSON) into canonical samples. */
import type { Sample } from '../contracts';
import { guarded, isName, problem, rejected, type DecodeProblem, type Decoder } from './decoder';
import { mapResource } from './otlp-mapping';
import { attributesOf, object, objects, readProtobuf, type Loose } from './otlp-wire';
import { SeriesStore } from './series';

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
 * A resource without `cell.id` or `service.instance.id` is a problem of its own and leaves the others untouched.
 */
export function createOtlpDecoder(series: SeriesStore = new SeriesStore()): Decoder {
  const decode: Decoder = (value) => {
    const request = readRequest(value);
    if ('reason' in request && typeof request.reason === 'string') {
      return { samples: [], problems: [request as unknown as DecodeProblem] };
    }
    const resources = objects((request as Loose).resourceMetrics);
    if (resources.length === 0) return rejected('empty', 'no resourceMetrics in the request');
    const samples: Sample[] = [];
    const problems: DecodeProblem[] = [];
    resources.forEach((resourceMetrics, index) => {
      const attributes = attributesOf(object(resourceMetrics.resource)?.attributes);
      const cell = attributes.get('cell.id');
      const instance = attributes.get('service.instance.id');
      const where = `resourceMetrics[${index}]`;
      if (!isName(cell)) problems.push(problem('no-cell', `${where}: resource attribute cell.id is missing`));
      else if (!isName(instance)) {
        problems.push(problem('no-instance', `${where}: resource attribute service.instance.id is missing`));
      } else mapResource({ cell, instance, where, series, samples, problems }, resourceMetrics);
    });
    return { samples, problems };
  };
  return guarded(decode, 'wrong-schema');
}
