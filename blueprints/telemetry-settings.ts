/** Settings of the telemetry topics: decoder, identity of the cells, and the mapping of JSON that is nobody's format. */
import { z } from 'zod';
import { metricNames } from '../prediction/metrics';

export const decoderNames = [
  'detect',
  'otlp',
  'understudy-json',
  'collectd',
  'telegraf-json',
  'telegraf-influx',
  'prometheus',
  'json-map',
] as const;

const pattern = z
  .string()
  .optional()
  .superRefine((text, context) => {
    if (text === undefined) return;
    try {
      new RegExp(text, 'u');
    } catch (error) {
      context.addIssue({ code: 'custom', message: error instanceof Error ? error.message : String(error) });
      return;
    }
    if (!/\(\?<(cell|instance)>/.test(text)) {
      context.addIssue({ code: 'custom', message: 'must have a group (?<cell>...) or (?<instance>...)' });
    }
  })
  .describe('Regular expression whose groups `cell` and `instance` are taken. Default: the whole text.');
const gives = z.enum(['cell', 'instance']).default('cell').describe('What the whole text is, without a pattern.');

export const identityStepSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('attribute'),
    name: z.string().min(1).describe('Attribute, label, tag, field or JSON path.'),
    pattern,
    gives,
  }),
  z.strictObject({ kind: z.literal('key'), pattern, gives }),
  z.strictObject({ kind: z.literal('header'), name: z.string().min(1).describe('Kafka header.'), pattern, gives }),
  z.strictObject({
    kind: z.literal('declared'),
    attributes: z
      .array(z.string().min(1))
      .min(1)
      .describe('Each is compared with name, address and address:port of the declared instances.'),
  }),
  z.strictObject({ kind: z.literal('constant'), cell: z.string().min(1) }),
]);

export type IdentityStep = z.infer<typeof identityStepSchema>;

const path = z.string().min(1).describe('JSON pointer (`/a/b`) or dotted path (`a.b`).');

const jsonMetric = z
  .strictObject({
    metric: z.enum(metricNames as unknown as [string, ...string[]]).describe('Canonical metric.'),
    path: path.optional().describe('Where the value stands in a record.'),
    name: z.string().optional().describe('Name of a name/value pair (see `pairs`), in place of `path`.'),
    scale: z.number().default(1).describe('Multiplies the value, to bring it to the unit of the metric.'),
    offset: z.number().default(0).describe('Added after the scale.'),
    counter: z.boolean().default(false).describe('The value only grows: its growth per second is taken.'),
    over: z
      .string()
      .optional()
      .describe('Path, or name of a pair, of what the value is divided by; a counter if `counter`.'),
  })
  .refine((m) => (m.path === undefined) !== (m.name === undefined), { message: 'needs either path or name' });

export const jsonMapSchema = z
  .strictObject({
    records: path
      .optional()
      .describe('The list of records. Default: the document itself, or each item if it is a list.'),
    cell: path.optional().describe('Tried before `identity`.'),
    instance: path.optional().describe('Tried before `identity`.'),
    time: z.strictObject({
      path,
      unit: z.enum(['iso', 's', 'ms', 'us', 'ns']).default('iso'),
    }),
    pairs: z
      .strictObject({ list: path.describe('List of name/value pairs in a record.'), name: path, value: path })
      .optional(),
    metrics: z.array(jsonMetric).min(1),
  })
  .refine((map) => map.pairs !== undefined || map.metrics.every((m) => m.name === undefined), {
    message: 'metrics by name need `pairs`',
    path: ['pairs'],
  });

export type JsonMap = z.infer<typeof jsonMapSchema>;

export const telemetryTopicSchema = z
  .strictObject({
    topic: z.string(),
    decoder: z.enum(decoderNames).default('detect'),
    identity: z
      .array(identityStepSchema)
      .min(1)
      .optional()
      .describe(
        'Where the names of cell and instance are looked for, in this order. Default: attributes `cell.id` and `cell`, then the declared instance whose name or address is in `service.instance.id`, `instance`, `host.name` or `host`.',
      ),
    collectd: z
      .strictObject({
        storeRates: z.boolean().default(true).describe('As in write_kafka: whether counters arrive as rates.'),
      })
      .optional(),
    jsonMap: jsonMapSchema.optional().describe('Only for decoder `json-map`, and needed there.'),
  })
  .refine((t) => (t.decoder === 'json-map') === (t.jsonMap !== undefined), {
    message: 'decoder json-map and jsonMap belong together',
    path: ['jsonMap'],
  });
