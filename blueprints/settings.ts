/** The settings of Understudy's own processes: where Kafka, Temporal, Postgres and the control plane are. One YAML file. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { z } from 'zod';
import { packageRoot } from '../package-root';
import { controlPlaneSchema } from './control-plane-settings';
import {
  cellSettingsSchema,
  dockerProviderSchema,
  execProvidersSchema,
  processProviderSchema,
} from './provider-settings';
import { telemetryTopicSchema } from './telemetry-settings';

export const settingsSchema = z.strictObject({
  kafka: z.strictObject({
    brokers: z.array(z.string()).min(1),
    groupId: z.string().default('understudy-scoring'),
    telemetry: z
      .array(telemetryTopicSchema)
      .min(1)
      .default([
        { topic: 'understudy.telemetry.otlp', decoder: 'otlp' },
        { topic: 'understudy.telemetry.json', decoder: 'understudy-json' },
      ]),
    scoresTopic: z.string().default('understudy.scores'),
    shadowScoresTopic: z
      .string()
      .default('understudy.scores.shadow')
      .describe('What a challenger model says (see scoring.shadowModelManifest); nobody decides by it.'),
    modelHealthTopic: z
      .string()
      .default('understudy.model-health')
      .describe('Drift of features and scores, observed against expected failures; compacted, keyed by model.'),
    decisionsTopic: z
      .string()
      .default('understudy.decisions')
      .describe('Every decision of failovers, drills and reconciliations as CloudEvents, keyed by service/cell.'),
    deadLetterTopic: z.string().default('understudy.dead-letter'),
    windowsTopic: z
      .string()
      .default('understudy.windows')
      .describe("Snapshots of the cells' windows, from which a restarted worker goes on; compacted."),
  }),
  temporal: z.strictObject({
    address: z.string(),
    namespace: z.string().default('default'),
    failoverTaskQueue: z.string().default('understudy-failover'),
    scoringTaskQueue: z.string().default('understudy-scoring'),
    uiAddress: z.string().optional().describe('Base URL of the Temporal UI, for links.'),
  }),
  postgres: z.strictObject({ url: z.string().describe('postgres://user:password@host:port/database') }),
  controlPlane: controlPlaneSchema,
  scoring: z
    .strictObject({
      stepMs: z.number().int().min(100).default(1000).describe('Sampling step: one score per cell and step.'),
      latenessMs: z.number().int().min(0).default(500).describe('How long a tick waits for late samples.'),
      maxSampleAgeS: z.number().min(1).default(120).describe('Older samples are dead-lettered as stale.'),
      maxFutureS: z.number().min(0).default(5).describe('Samples further ahead of this clock are dead-lettered.'),
      maxRecordBytes: z
        .number()
        .int()
        .min(1024)
        .default(1_048_576)
        .describe('Larger records are dead-lettered undecoded.'),
      snapshotEverySteps: z
        .number()
        .int()
        .min(0)
        .default(30)
        .describe(
          'Steps between two snapshots of the windows: as much telemetry is read again after a crash. 0: none.',
        ),
      riskChangedEveryMs: z.number().int().min(500).default(2000),
      modelManifest: z.string().default(join(packageRoot, 'models', 'manifest.json')),
      shadowModelManifest: z
        .string()
        .optional()
        .describe('A challenger, scored beside the model on the same features; it starts no failover.'),
    })
    .prefault({}),
  processProvider: processProviderSchema,
  dockerProvider: dockerProviderSchema,
  execProviders: execProvidersSchema,
  cells: cellSettingsSchema,
  reconciliation: z
    .strictObject({
      everyS: z.number().min(1).default(60).describe('Seconds between looks for what terminated runs left behind.'),
      graceS: z
        .number()
        .min(0)
        .default(30)
        .describe('What has been so for less than this is left alone: a run may be about to begin.'),
    })
    .prefault({}),
  logLevel: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info'),
});

export type Settings = z.infer<typeof settingsSchema>;

/** Reads and checks a settings file. Throws an Error that names the file, the path within it and the reason. */
export function loadSettings(file: string): Settings {
  const parsed = settingsSchema.safeParse(readSettings(file));
  if (parsed.success) return parsed.data;
  throw new Error(settingsProblems(file, parsed.error));
}

/** What the YAML file says, unchecked. Throws an Error that names the file. */
export function readSettings(file: string): unknown {
  try {
    return parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new Error(`${file}: ${(error as Error).message}`, { cause: error });
  }
}

/** One line per problem: file, path, reason. */
export function settingsProblems(file: string, { issues }: z.ZodError): string {
  return issues.map(({ path, message }) => `${file}: ${path.join('.') || '(top)'}: ${message}`).join('\n');
}
