/** Chooses the decoder of a record: by the configured name, or by the record's first bytes. */
import { rejected, type Decoder } from './decoder';
import { createOtlpDecoder } from './otlp';
import { SeriesStore } from './series';
import { decodeUnderstudyJson, understudySchema } from './understudy-json';

export type DecoderName = 'detect' | 'otlp' | 'understudy-json';

/** Every decoder by its configured name; they share one memory of cumulative series. */
export function createDecoders(series: SeriesStore = new SeriesStore()): Record<DecoderName, Decoder> {
  const otlp = createOtlpDecoder(series);
  return {
    otlp,
    'understudy-json': decodeUnderstudyJson,
    detect: (value, headers) => {
      if (value.length === 0) return rejected('empty', 'the record has no value');
      if (value[0] !== 0x7b) return otlp(value, headers);
      // Both JSON formats name themselves within any reasonable prefix or nowhere; no parse is spent on telling them apart.
      if (value.includes(understudySchema)) return decodeUnderstudyJson(value, headers);
      if (value.includes('"resourceMetrics"')) return otlp(value, headers);
      return rejected('unknown-format', 'JSON that is neither OTLP (resourceMetrics) nor understudy.telemetry/v1');
    },
  };
}
