/** The document Service: what callers call, and how it is to be spread, watched and protected. */
import { z } from 'zod';
import { basisPoints, name, port, probability } from './fields';
import { policySchema } from './policy';

const tlsSchema = z.strictObject({
  trustedCa: z
    .strictObject({
      file: z.string().min(1).optional().describe("PEM file on the proxy's machine, read when the cluster is made."),
      sds: z.string().min(1).optional().describe('Name of a secret that the control plane publishes; it can rotate.'),
    })
    .refine(({ file, sds }) => (file === undefined) !== (sds === undefined), { message: 'give either file or sds' })
    .describe('Who must have signed the certificates of the cells.'),
  subjectAltName: z
    .strictObject({
      kind: z.enum(['dns', 'uri']),
      value: z
        .string()
        .min(1)
        .describe(
          "`{cell}` stands for the cell's name. Declared cells must show exactly theirs, synthetic ones any of the service's.",
        ),
    })
    .describe("What a cell's certificate must say: to any other server no request is sent."),
  serverName: z.string().min(1).optional().describe('The name asked for in the handshake (SNI).'),
  certificate: z
    .strictObject({
      chainFile: z.string().min(1).optional(),
      keyFile: z.string().min(1).optional(),
      sds: z.string().min(1).optional(),
    })
    .refine(
      ({ chainFile, keyFile, sds }) =>
        sds === undefined ? chainFile !== undefined && keyFile !== undefined : !chainFile && !keyFile,
      { message: 'give either sds, or both chainFile and keyFile' },
    )
    .optional()
    .describe('What the proxy shows of itself, for cells that ask.'),
});

export const serviceSchema = z.strictObject({
  kind: z.literal('Service'),
  name,
  listener: z
    .strictObject({ address: z.string().default('127.0.0.1'), port })
    .describe('Where Envoy accepts callers of this service.'),
  slo: z.strictObject({
    latencyMs: z.number().positive().describe('A slower answer has missed the objective.'),
    errorRatio: probability.default(0.05).describe('Above this the service has failed.'),
  }),
  protocol: z
    .enum(['http/1.1', 'http/2', 'grpc'])
    .default('http/1.1')
    .describe(
      "What the cells speak. http/2 and grpc: without TLS by prior knowledge. grpc: also gRPC's health checks and its own conditions for a retry.",
    ),
  http: z
    .strictObject({
      repeatable: z
        .array(z.enum(['PUT', 'DELETE']))
        .default([])
        .describe(
          'Methods besides those that only read whose requests are sent to another instance if the answer is lost or is 502, 503 or 504. The first may have been carried out all the same, so only where a caller can take the answer to the second for it: not with `If-Match`, nor where deleting again answers 404.',
        ),
    })
    .prefault({})
    .describe('Not for protocol grpc.'),
  grpc: z
    .strictObject({
      healthService: z
        .string()
        .default('')
        .describe('Whose health is asked for; empty asks for that of the whole server.'),
      retryOn: z
        .array(z.enum(['cancelled', 'deadline-exceeded', 'internal', 'resource-exhausted', 'unavailable']))
        .default(['cancelled', 'unavailable'])
        .describe(
          'Statuses upon which a call is repeated at another instance, besides those where it surely never ran.',
        ),
      proxyless: z
        .boolean()
        .default(false)
        .describe('Also serve gRPC clients that take xDS themselves, without a proxy, as `xds:///<name>.grpc`.'),
    })
    .prefault({})
    .describe('For protocol grpc only.'),
  tls: tlsSchema.optional().describe('Left out: the cells are spoken to without TLS.'),
  distribution: z
    .enum(['locality-weights', 'weighted-clusters'])
    .default('locality-weights')
    .describe(
      'locality-weights: one cluster, in which a step is one message, picks are exact and retries reach other cells. weighted-clusters: one cluster per cell, chosen by the route at random; a retry stays in the cell and its cover. Only for cells that need clusters of their own.',
    ),
  affinity: z
    .strictObject({
      cookie: z.string().regex(/^[\w-]+$/, 'must be letters, digits, hyphens and underscores'),
      path: z.string().startsWith('/').default('/'),
      ttlS: z.number().int().min(0).default(0).describe("0: until the caller's session ends."),
    })
    .optional()
    .describe(
      "A cookie keeps a caller at its instance, whatever the split becomes, until the instance is unhealthy or drained. It holds the instance's address. Not with weighted-clusters.",
    ),
  mirror: z
    .strictObject({
      percent: z.number().min(0).max(100).default(0),
      paths: z
        .array(z.string().startsWith('/'))
        .default([])
        .describe(
          'Beginnings of paths; empty: all. With protocol grpc whole paths, `/package.Service/Method`, of calls that only read; empty: none.',
        ),
    })
    .prefault({})
    .describe(
      'Copies of requests that only read (GET, HEAD, OPTIONS) for synthetic cells while they warm up, and for a source whose whole share was taken until it is clear whether it would have failed; their answers are thrown away.',
    ),
  latency: z
    .strictObject({
      samplePercent: z
        .number()
        .min(0)
        .max(100)
        .default(0)
        .describe('Percent of requests that proxies report one by one, for the latency per cell; 0: latency unknown.'),
    })
    .prefault({}),
  healthCheck: z
    .strictObject({
      path: z.string().startsWith('/').default('/healthz').describe('Requested by GET; not used with protocol grpc.'),
      intervalMs: z.number().min(100).default(1000),
    })
    .prefault({}),
  safeSplit: z
    .record(name, basisPoints)
    .describe('Shares per cell in basis points, adding up to 10,000: the split to begin with and to return to.')
    .refine((s) => Object.values(s).reduce((a, b) => a + b, 0) === 10_000, { message: 'shares must add up to 10000' }),
  policy: policySchema.prefault({}),
  steps: z
    .strictObject({
      onRefusal: z
        .enum(['roll-back', 'hold'])
        .default('roll-back')
        .describe(
          'What becomes of a split that a proxy refuses. roll-back: the split before it is commanded again, as an epoch of its own. hold: it stays, at the proxies that took it.',
        ),
      acknowledgedShare: z
        .number()
        .min(0.01)
        .max(1)
        .default(1)
        .describe('The wait for a split ends once this share of the connected proxies has acknowledged it.'),
    })
    .prefault({})
    .describe('How a change of the split is carried through at the proxies.'),
});

export type ServiceDocument = z.infer<typeof serviceSchema>;
