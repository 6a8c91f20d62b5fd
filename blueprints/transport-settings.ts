/** Settings of the connections between proxies and the control plane. */
import { z } from 'zod';

export const transportSettingsSchema = z.strictObject({
  stalledAfterMs: z
    .number()
    .int()
    .min(100)
    .default(30_000)
    .describe('A proxy that leaves a response unanswered for longer is cut off; it will come back.'),
  newStreamsAtOnce: z
    .number()
    .int()
    .min(1)
    .optional()
    .describe(
      'New streams that are given their first answers at once; the others wait in order. Default 15 + 5 per core.',
    ),
  newStreamsPerSecond: z
    .number()
    .positive()
    .optional()
    .describe('New streams per second. Without it as many as are served.'),
  maxConnectionAgeMs: z
    .number()
    .int()
    .min(1000)
    .optional()
    .describe('A connection is ended gracefully after about so long (+-10 %), so that proxies spread over replicas.'),
  maxConnectionAgeGraceMs: z
    .number()
    .int()
    .min(0)
    .default(10_000)
    .describe('What is still open so long after the end of a connection began is cut.'),
});
