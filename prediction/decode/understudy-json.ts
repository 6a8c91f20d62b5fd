/** Decodes Understudy's own telemetry: one JSON object per record, schema `understudy.telemetry/v1`. */
import type { Sample } from '../contracts';
import { isMetricName } from '../metrics';
import { guarded, isName, problem, rejected, type DecodeProblem, type Decoder } from './decoder';

export const understudySchema = 'understudy.telemetry/v1';

function decode(value: Buffer): ReturnType<Decoder> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(value.toString('utf8'));
  } catch (error) {
    return rejected('not-json', error instanceof Error ? error.message : String(error));
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
    return rejected('wrong-schema', 'expected one JSON object per record');
  }
  const record = parsed as Record<string, unknown>;
  if (record.schema !== understudySchema) {
    return rejected('wrong-schema', `schema is ${JSON.stringify(record.schema)}, expected "${understudySchema}"`);
  }
  const { cell, instance, ts, metrics } = record;
  if (!isName(cell)) return rejected('no-cell', 'cell must be a non-empty string');
  if (!isName(instance)) return rejected('no-instance', 'instance must be a non-empty string');
  const atMs = typeof ts === 'string' ? Date.parse(ts) : NaN;
  if (!Number.isFinite(atMs)) return rejected('bad-time', `ts is ${JSON.stringify(ts)}, expected ISO 8601`);
  if (typeof metrics !== 'object' || metrics === null || Array.isArray(metrics)) {
    return rejected('wrong-schema', 'metrics must be an object of numbers by canonical metric name');
  }
  const samples: Sample[] = [];
  const problems: DecodeProblem[] = [];
  for (const [metric, number] of Object.entries(metrics)) {
    // Names outside the canonical table are other people's metrics in the same record: ignored, not an error.
    if (!isMetricName(metric)) continue;
    if (typeof number === 'number' && Number.isFinite(number)) {
      samples.push({ cell, instance, atMs, metric, value: number });
    } else if (number !== null) {
      problems.push(problem('bad-value', `metrics["${metric}"] is ${JSON.stringify(number)}, expected a number`));
    }
  }
  return { samples, problems };
}

export const decodeUnderstudyJson: Decoder = guarded(decode, 'wrong-schema');
