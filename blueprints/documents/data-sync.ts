/** How the data of a synthetic cell follows its source's: the part `dataSync` of a Blueprint. */
import { z } from 'zod';

const path = z
  .string()
  .startsWith('/')
  .default('/data-sync')
  .describe('Where the cell tells of its data and takes orders; see data-consistency.md.');

const maxLagS = z
  .number()
  .positive()
  .default(5)
  .describe('How old, in seconds, the newest change may be that a cell has while it is behind.');

const kafkaChangelogSchema = z.strictObject({
  kind: z.literal('kafka-changelog'),
  brokers: z
    .array(z.string().regex(/^[^\s:@/]+:\d+$/, 'must be host:port'))
    .min(1)
    .describe('host:port of the Kafka that holds the log.'),
  topic: z
    .string()
    .regex(/^[\w.-]{1,249}$/, 'must be the name of a topic')
    .describe('The log of the state: a compacted topic of one partition.'),
  path,
  maxLagRecords: z
    .number()
    .int()
    .min(0)
    .default(1000)
    .describe('The gate opens to a cell no further behind; the handover itself waits for the rest.'),
  maxLagS,
});

const identifier = z.string().regex(/^[A-Za-z_][\w-]{0,62}$/, 'must be letters, digits, hyphens and underscores');

const postgresSchema = z.strictObject({
  kind: z.literal('postgres'),
  database: identifier.describe("Name of the service's database in each cell's own Postgres."),
  user: identifier.describe('May change settings, create replication slots and promote.'),
  passwordFile: z
    .string()
    .startsWith('/', 'must be an absolute path')
    .describe("File with the user's password, read when it is needed; the password itself never stands here."),
  path,
  maxLagBytes: z
    .number()
    .int()
    .min(0)
    .default(16 * 1024 * 1024)
    .describe('The gate opens to a replica no further behind; the handover itself waits for the rest.'),
  maxLagS,
});

export const dataSyncSchema = z
  .discriminatedUnion('kind', [z.strictObject({ kind: z.literal('none') }), kafkaChangelogSchema, postgresSchema])
  .default({ kind: 'none' });

export type DataSyncDocument = z.infer<typeof dataSyncSchema>;
