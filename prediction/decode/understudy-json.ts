/** Decodes Understudy's own telemetry: one JSON object per record, schema `understudy.telemetry/v1`. */
import { isMetricName } from '../metrics';
import { guarded, isName, rejected, type Decoder } from './decoder';
import { SampleSink } from './sink';

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
  const sink = new SampleSink();
  const id = { cell, instance };
  for (const [metric, number] of Object.entries(metrics)) {
    // Names outside the canonical table are other people's metrics in the same record: ignored, not an error.
    if (!isMetricName(metric)) sink.ignore('unmapped');
    else if (typeof number === 'number') sink.emit(id, atMs, metric, number, 'metrics');
    else if (number === null) sink.ignore('no-value');
    else sink.object('bad-value', `metrics["${metric}"] is ${JSON.stringify(number)}, expected a number`);
  }
  return sink.result();
}

export const decodeUnderstudyJson: Decoder = guarded(decode, 'wrong-schema');
