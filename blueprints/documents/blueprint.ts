/** The document Blueprint: everything a cell is made from. */
import { z } from 'zod';
import { dataSyncSchema } from './data-sync';
import { name } from './fields';
import { networkSchema } from './network';
import { providerSchema } from './provider';
import { securitySchema } from './security';
import { warmUpStepSchema } from './warm-up';

/** What control groups and the kernel can hold at all: bytes in 63 bits, PID_MAX_LIMIT, fs.nr_open. */
const largestMemoryMib = 8_796_093_022_207;
const largestPid = 4_194_304;
const largestOpenFiles = 1_048_576;

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
          'Argument vector, no shell. {address}, {port}, {instance}, {cell}, {service}, {memoryLimitMib}, {dir} (a folder of the instance), {secret:NAME} (the file that holds a secret) and, with security.identity, {tlsKey}, {tlsCert} and {tlsCa} (its files) are filled in.',
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
    .array(
      z.strictObject({
        name: z.string().min(1),
        version: z.string().min(1).describe('Whole, or as far as it matters: 20 stands for 20.19.4, too.'),
      }),
    )
    .default([])
    .describe('Software the cell needs. `understudy blueprint drift` compares it with what its cells really run.'),
  network: networkSchema,
  security: securitySchema,
  resources: z.strictObject({
    instances: z.number().int().min(1).max(64).default(2),
    memoryLimitMib: z.number().int().min(16).max(largestMemoryMib).describe('Of each instance.'),
    memoryRequestMib: z
      .number()
      .int()
      .min(1)
      .optional()
      .describe('What an instance needs at least; not above memoryLimitMib.'),
    cpu: z.number().positive().optional().describe('Cores that an instance may use.'),
    cpuRequest: z.number().positive().optional().describe('Cores that an instance needs at least; not above cpu.'),
    processes: z
      .number()
      .int()
      .min(1)
      .max(largestPid)
      .optional()
      .describe('Processes and threads of an instance, read back before it is armed.'),
    openFiles: z
      .number()
      .int()
      .min(1)
      .max(largestOpenFiles)
      .optional()
      .describe('Open files of a process, read back before it is armed.'),
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
    .strictObject({
      protocol: z
        .enum(['http/1.1', 'http/2', 'grpc'])
        .default('http/1.1')
        .describe(
          "How an instance is asked. http/2: by prior knowledge, or over TLS as h2. grpc: by gRPC's health check of the whole server.",
        ),
      path: z.string().startsWith('/').default('/healthz').describe('Must answer 2xx; not used with grpc.'),
      timeoutS: z.number().min(0.5).default(20),
    })
    .prefault({}),
  warmUp: z.array(warmUpStepSchema).default([]),
  scaleDown: z
    .strictObject({
      idle: z
        .enum(['auto', 'frozen', 'stopped'])
        .default('auto')
        .describe(
          'How a cell waits idle. frozen: its processes stand still and keep their memory; it is back in a moment, warm. stopped: they are ended, what they wrote and their ports are kept; it costs nothing, and is started again and warmed when it is needed. auto: stopped if cells of this version were started and warm within backWithinS lately, else frozen; also where nothing was measured.',
        ),
      backWithinS: z
        .number()
        .min(0)
        .optional()
        .describe(
          'For idle: auto. Seconds that a cell may take to be started and, where there is a warmUp, warm, so that it rests stopped; the steps mirror and load are not counted, which take as long after a thaw. Left out: 2 for provider process, 10 for any other.',
        ),
      keep: z
        .enum(['expected-cost', 'time'])
        .default('time')
        .describe(
          'time: an idle cell is kept for retireAfterS. expected-cost: as many as `understudy pool explain` says, but none for longer than policy.pool.keepAtMostS.',
        ),
      retireAfterS: z
        .number()
        .min(0)
        .optional()
        .describe("Seconds an idle cell is kept. Left out: the service's policy.retireAfterS."),
    })
    .prefault({})
    .describe('What becomes of synthetic cells that wait idle.'),
});

export type BlueprintDocument = z.infer<typeof blueprintSchema>;
