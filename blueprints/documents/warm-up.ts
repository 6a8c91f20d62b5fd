/** The steps by which a synthetic cell is warmed: the part `warmUp` of a Blueprint. */
import { z } from 'zod';

export const warmUpStepSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('preload'),
    path: z
      .string()
      .startsWith('/')
      .describe('POSTed to each instance with {"from": "<peer address>"}; answers {"entries": n}.'),
    minEntries: z.number().int().min(0).default(1),
    timeoutS: z.number().min(0.1).default(30),
  }),
  z.strictObject({
    kind: z.literal('connections'),
    perInstance: z.number().int().min(1).default(4).describe('Connections opened to each instance and used once.'),
    path: z.string().startsWith('/').default('/healthz'),
  }),
  z.strictObject({
    kind: z.literal('probe'),
    path: z.string().startsWith('/').describe('Requested on the synthetic cell and on its peers, side by side.'),
    requests: z.number().int().min(1).default(50).describe('Per instance.'),
    maxLatencyRatio: z.number().min(1).default(2).describe("Largest accepted p95 as a multiple of the peers'."),
    toleranceMs: z.number().min(0).default(20).describe('Differences below this are accepted whatever the ratio.'),
  }),
]);

export type WarmUpStep = z.infer<typeof warmUpStepSchema>;
