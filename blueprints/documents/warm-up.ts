/** The steps by which a synthetic cell is warmed: the part `warmUp` of a Blueprint. */
import { z } from 'zod';

const requestPath = z.string().startsWith('/');
const latencyLimits = {
  maxLatencyRatio: z.number().min(1).default(2).describe("Largest accepted p95 as a multiple of the peers'."),
  toleranceMs: z.number().min(0).default(20).describe('Differences below this are accepted whatever the ratio.'),
};

const preloadSchema = z.strictObject({
  kind: z.literal('preload'),
  path: requestPath.describe('POSTed to each instance with {"from": "<peer address>"}; answers {"entries": n}.'),
  minEntries: z.number().int().min(0).default(1),
  timeoutS: z.number().min(0.1).default(30),
});

const connectionsSchema = z.strictObject({
  kind: z.literal('connections'),
  perInstance: z.number().int().min(1).default(4).describe('Connections opened to each instance and used once.'),
  path: requestPath.default('/healthz'),
});

const mirrorSchema = z.strictObject({
  kind: z.literal('mirror'),
  requests: z
    .number()
    .int()
    .min(1)
    .default(100)
    .describe(
      "How many copies of callers' requests the cell is to have answered. The service's `mirror` says which are copied, and what part of them.",
    ),
  timeoutS: z.number().min(1).default(30),
  tolerance: z
    .number()
    .min(0)
    .max(1)
    .default(0.02)
    .describe("The share of the copies that may fail beyond that of the peers' requests."),
  required: z
    .boolean()
    .default(false)
    .describe('Whether a cell is kept from being warm if too few callers come. Copies that fail always keep it.'),
});

const probeSchema = z
  .strictObject({
    kind: z.literal('probe'),
    path: requestPath.optional().describe('Requested on the synthetic cell and on its peers, side by side.'),
    paths: z.array(requestPath).default([]).describe('Several, one for each code path: each is judged by itself.'),
    requests: z.number().int().min(1).default(50).describe('Per instance, path and round.'),
    ...latencyLimits,
    atMostS: z
      .number()
      .min(0)
      .default(15)
      .describe(
        'A path that is too slow is probed again for as long as its p95 goes on falling: code is compiled, caches fill. After this time no round is begun.',
      ),
  })
  .refine(({ path, paths }) => path !== undefined || paths.length > 0, { message: 'give path or paths' });

const hitRatioSchema = z
  .strictObject({
    kind: z.literal('hitRatio'),
    counters: requestPath.describe('Where an instance tells its counters: JSON, or text as Prometheus reads it.'),
    hits: z
      .string()
      .min(1)
      .optional()
      .describe(
        'JSON pointer (`/cache/hits`) or series (`cache_requests_total{result="hit"}`) of a counter; series that match are added up.',
      ),
    misses: z.string().min(1).optional(),
    ratio: z.string().min(1).optional().describe('In place of hits and misses: a gauge from 0 to 1.'),
    paths: z
      .array(requestPath)
      .min(1)
      .describe('Requested by GET, in turn, on the cell and its peers between two readings; `{n}` counts 1, 2, 3...'),
    requests: z
      .number()
      .int()
      .min(1)
      .default(50)
      .describe(
        'Per instance. Asked twice, a cache that fills as it is asked hits: ask for as many things as requests.',
      ),
    tolerance: z.number().min(0).max(1).default(0.1).describe("How far below its peers' the ratio may be."),
    atLeast: z.number().min(0).max(1).optional().describe('The ratio needed whatever that of the peers is.'),
  })
  .refine(({ hits, misses, ratio }) => (ratio === undefined ? hits !== undefined && misses !== undefined : !hits), {
    message: 'give either ratio, or both hits and misses',
  });

const loadSchema = z.strictObject({
  kind: z.literal('load'),
  paths: z.array(requestPath).min(1).describe('Requested by GET, in turn: paths that only read.'),
  share: z
    .enum(['canary', 'source'])
    .default('canary')
    .describe(
      "Which part of the service's requests per second, as proxies measure them: what the canary brings, or all that the source carries.",
    ),
  forS: z.number().min(1).default(5),
  atMostRequestsPerSecond: z.number().min(1).default(100),
  maxErrorRatio: z
    .number()
    .min(0)
    .max(1)
    .default(0.01)
    .describe('It is ended as soon as more fail, or the cell sheds.'),
  ...latencyLimits,
});

export const warmUpStepSchema = z.discriminatedUnion('kind', [
  preloadSchema,
  connectionsSchema,
  mirrorSchema,
  probeSchema,
  hitRatioSchema,
  loadSchema,
]);

export type WarmUpStep = z.infer<typeof warmUpStepSchema>;
