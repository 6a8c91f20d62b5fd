/** The document Blueprint: everything a cell is made from. */
import { z } from 'zod';
import { dataSyncSchema } from './data-sync';
import { name } from './fields';
import { providerSchema } from './provider';
import { warmUpStepSchema } from './warm-up';

export const blueprintSchema = z.strictObject({
  kind: z.literal('Blueprint'),
  name,
  provider: providerSchema,
  image: z
    .strictObject({
      os: z.string().default('host').describe('OS image; `host` for processes of this machine.'),
      command: z
        .array(z.string())
        .min(1)
        .describe(
          'Argument vector, no shell. {address}, {port}, {instance}, {cell}, {service}, {memoryLimitMib} and {dir} (a folder of the instance) are filled in.',
        ),
      workingDirectory: z
        .string()
        .optional()
        .describe("Where the command starts. Default: the folder of Understudy's own package."),
      environment: z
        .record(z.string(), z.string())
        .default({})
        .describe('Beside PATH and HOME the whole environment; the same words are filled in.'),
    })
    .describe('OS image or command.'),
  dependencies: z
    .array(z.strictObject({ name: z.string(), version: z.string() }))
    .default([])
    .describe('Software the cell needs, by name and version.'),
  network: z
    .strictObject({
      address: z.string().default('127.0.0.1'),
      egress: z
        .array(z.string())
        .default([])
        .describe(
          'Allowed host:port. A record only for provider process, which adds nothing to what the machine allows.',
        ),
    })
    .prefault({}),
  security: z
    .strictObject({
      user: z.string().optional().describe('User the cell runs as; the same for source and synthetic.'),
      identity: z.string().optional(),
      secrets: z.array(z.string()).default([]).describe('References only, never values.'),
    })
    .prefault({}),
  resources: z.strictObject({
    instances: z.number().int().min(1).max(64).default(2),
    memoryLimitMib: z.number().int().min(16),
    cpu: z.number().positive().optional(),
    enforce: z
      .boolean()
      .default(false)
      .describe(
        'Whether the provider has the system hold each instance to memoryLimitMib and cpu. What then is in force is read back.',
      ),
  }),
  capacity: z
    .strictObject({ requestsPerSecond: z.number().positive() })
    .describe('What the whole cell was shown to carry within the objective.'),
  dataSync: dataSyncSchema,
  readiness: z
    .strictObject({ path: z.string().startsWith('/').default('/healthz'), timeoutS: z.number().min(0.5).default(20) })
    .prefault({}),
  warmUp: z.array(warmUpStepSchema).default([]),
});

export type BlueprintDocument = z.infer<typeof blueprintSchema>;
