/** The documents people write: Service, Cell and Blueprint. From these schemas follow types, checks, JSON Schema and docs. */
import { z } from 'zod';

const name = z
  .string()
  .regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, 'must be lower-case letters, digits and hyphens, 1 to 63 characters');
const probability = z.number().min(0).max(1);
const port = z.number().int().min(1).max(65535);
const basisPoints = z.number().int().min(0).max(10_000);

const level = z
  .strictObject({
    enter: probability.describe('Failure probability at which the level begins.'),
    exit: probability.describe('Failure probability under which the level ends. Must be below `enter`.'),
    persistS: z
      .number()
      .min(0)
      .max(3600)
      .describe('Seconds the probability must stay beyond enter, or under exit, first.'),
  })
  .refine((l) => l.exit < l.enter, { message: 'exit must be below enter', path: ['exit'] });

const clock = z.string().regex(/^([01]\d|2[0-3]):[0-5]\d$/, 'must be a time of day such as 02:30');

/** A practice prediction through the whole chain at a small share. */
export const drillSchema = z.strictObject({
  everyH: z.number().min(0.01).default(168).describe('Hours between drills.'),
  cell: name.optional().describe('The source. Left out: each declared cell of the service in turn.'),
  shareBp: basisPoints.min(1).max(2000).default(100).describe('Share of the service the synthetic cell takes.'),
  forS: z.number().min(0).max(3600).default(30).describe('Seconds it keeps the share once it was judged good.'),
  atMostS: z
    .number()
    .min(10)
    .max(14_400)
    .default(900)
    .describe('Without the share proven by then the drill gives up, and has failed.'),
  spareBp: basisPoints
    .default(2000)
    .describe('Unused capacity that every cell of the service must have, before the drill and before the way back.'),
  blocked: z
    .array(
      z.strictObject({
        days: z
          .array(z.enum(['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun']))
          .default(['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun']),
        from: clock.describe('UTC.'),
        to: clock.describe('UTC; before `from`: on the next day.'),
      }),
    )
    .default([])
    .describe('When no drill begins.'),
});

/** When automatic failover is not wanted. */
export const blockedWindowSchema = z.strictObject({
  days: z
    .array(z.enum(['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun']))
    .default(['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'])
    .describe('Days on which the window begins.'),
  from: clock.describe('UTC.'),
  to: clock.describe('UTC; not after `from`: on the next day.'),
  allow: z
    .enum(['nothing', 'prepare'])
    .default('prepare')
    .describe('prepare: a synthetic cell may be made and armed as cover. nothing: not even that.'),
});

/** What limits a failover beyond the risk itself, and how it plans. Apart from `policySchema` only to be read in one piece. */
const caution = {
  trust: z
    .strictObject({
      prepare: probability.default(0.2).describe('Below this trust in the telemetry nothing new is begun.'),
      full: probability.default(0.6).describe('Below this trust no more than the canary moves.'),
      margin: probability.default(0.1).describe('What was granted is taken back only this far below its threshold.'),
    })
    .prefault({})
    .describe('How far a failover may go by the trust in the telemetry; between `minTrust` and `full`: a canary.'),
  approval: z
    .strictObject({
      waitS: z.number().min(1).default(300).describe('Seconds a person has to answer.'),
      byDefault: z
        .enum(['hold', 'act'])
        .default('hold')
        .describe('Without an answer by then. act: silence is consent; a hold or an abort is an objection.'),
    })
    .prefault({})
    .describe('For autonomy approve.'),
  breaker: z
    .strictObject({
      cells: z.number().int().min(2).default(3).describe('Predictions within `windowS` that are no coincidence, ...'),
      share: probability
        .default(0.2)
        .describe('... if they are at least this share of the cells that have something in common.'),
      windowS: z.number().min(1).default(120).describe('Within how many seconds of one another.'),
    })
    .prefault({})
    .describe('Many cells predicted to fail together point to a common cause: nothing moves until a person approves.'),
  budget: z
    .strictObject({
      failoversPerDay: z.number().int().min(1).default(24).describe('Of this service within 24 h.'),
      standbyCellHoursPerDay: z
        .number()
        .min(0)
        .default(48)
        .describe('Hours of synthetic cells of this service within 24 h.'),
      concurrentInFleet: z.number().int().min(1).default(10).describe('Failovers of all services under way at once.'),
    })
    .prefault({})
    .describe('Beyond these no failover begins by itself; a person may approve it.'),
  flapping: z
    .strictObject({
      tolerated: z
        .number()
        .int()
        .min(0)
        .default(2)
        .describe('Failovers of one cell within 24 h that turn back before its cooldown grows.'),
      factor: z.number().min(1).default(2).describe('By what the cooldown grows each time.'),
      atMostS: z.number().min(0).default(3600).describe('Largest cooldown.'),
    })
    .prefault({})
    .describe('While a grown cooldown lasts, a new failover of the cell prepares but moves nothing.'),
  portability: z
    .enum(['prepare', 'canary', 'ignore'])
    .default('canary')
    .describe('How far to go when the cause would probably follow the traffic to the synthetic cell.'),
  blockedWindows: z.array(blockedWindowSchema).default([]).describe('When traffic is not moved automatically.'),
  leadTime: z
    .strictObject({
      createS: z.number().min(0).default(15).describe('Making a synthetic cell, while too few have been measured.'),
      warmS: z.number().min(0).default(15).describe('Warming it, while too few have been measured.'),
      shiftS: z.number().min(0).default(2).describe('One change of the split, while too few have been measured.'),
      emergencyShift: z
        .boolean()
        .default(true)
        .describe('Whether an armed cell may take the traffic without a canary when there is no time left for one.'),
    })
    .prefault({})
    .describe('The plan is made from measured durations (p95) and the predicted time to failure.'),
  canary: z
    .strictObject({
      maxBp: basisPoints
        .default(1500)
        .describe('Largest share of the first shift, if few requests or little time ask for more than `canaryBp`.'),
      falseAlarm: z.number().min(0.001).max(0.4).default(0.05).describe('Accepted risk of sending a good cell back.'),
      miss: z.number().min(0.001).max(0.4).default(0.05).describe('Accepted risk of going on with a bad one.'),
    })
    .prefault({})
    .describe('The verdict on the synthetic cell is a sequential test: it comes as soon as the evidence suffices.'),
  residualBp: basisPoints
    .max(1000)
    .default(0)
    .describe('Share left at an evacuated source, so that its end shows whether the prediction was right.'),
  operatorWaitS: z
    .number()
    .min(0)
    .default(3600)
    .describe(
      'After a gate has not opened for `holdAtMostS` a person is called; this long the failover waits for one.',
    ),
};

/** How a service wants to be protected. Every default is safe: a service that says nothing is observed only. */
export const policySchema = z.strictObject({
  autonomy: z
    .enum(['observe', 'advise', 'approve', 'act'])
    .default('observe')
    .describe(
      'observe: score only. advise: open a failover that reports what it would do. approve: wait for a person before traffic moves. act: move traffic.',
    ),
  horizonS: z
    .number()
    .min(1)
    .default(60)
    .describe('The horizon, in seconds, whose failure probability is compared with the levels.'),
  prepare: level
    .default({ enter: 0.4, exit: 0.15, persistS: 2 })
    .describe('From here on a synthetic cell may be created, warmed and armed.'),
  shift: level.default({ enter: 0.6, exit: 0.25, persistS: 2 }).describe('From here on traffic may move.'),
  minTrust: probability.default(0.5).describe('Below this trust in the telemetry no level above `prepare` is granted.'),
  staleAfterS: z.number().min(1).default(15).describe('A risk older than this is stale: the failover holds.'),
  minSourceLoad: probability
    .default(0.02)
    .describe("Traffic moves only if the source's load is above this share of its declared capacity."),
  canaryBp: basisPoints.default(500).describe('Share, in basis points of the whole service, of the first shift.'),
  canaryMinRequests: z
    .number()
    .int()
    .min(1)
    .default(30)
    .describe('Requests the synthetic cell must answer before a verdict.'),
  canaryTimeoutS: z.number().min(1).default(60).describe('Without a verdict by then the failover holds and says so.'),
  maxErrorRatio: probability.default(0.02).describe('Error ratio at the synthetic cell above which the canary fails.'),
  stepBp: basisPoints.min(1).default(1500).describe('Largest further shift per step while the risk lasts.'),
  stepIntervalS: z.number().min(0.2).default(3).describe('Seconds between steps, in which the last one is judged.'),
  reductionBp: basisPoints.min(1).default(1500).describe('Share given back per step once the risk has gone.'),
  reductionIntervalS: z.number().min(0.2).default(3).describe('Seconds between steps of the way back.'),
  cooldownS: z.number().min(0).default(60).describe('Seconds a finished failover stays open to absorb late signals.'),
  holdAtMostS: z
    .number()
    .min(1)
    .default(900)
    .describe(
      'A failover that can go neither on nor back for this long ends: evacuated if the source is empty, else given back. A hold ordered by a person has no such end.',
    ),
  retireAfterS: z
    .number()
    .min(0)
    .default(1800)
    .describe('Seconds an idle synthetic cell is kept before it is retired.'),
  outageMinutes: z
    .number()
    .min(0)
    .default(15)
    .describe('How long an outage of a cell usually lasts without failover: what the ledger counts as averted.'),
  drill: drillSchema.optional().describe('Practice predictions by schedule. Left out: none.'),
  maxConcurrentFailovers: z.number().int().min(1).default(1).describe('More failovers of the service than this wait.'),
  ...caution,
});

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
      'Copies of requests that only read (GET, HEAD, OPTIONS) for synthetic cells while they warm up; their answers are thrown away.',
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

export const instanceSchema = z.strictObject({ name, address: z.string(), port });

export const cellSchema = z.strictObject({
  kind: z.literal('Cell'),
  name,
  service: name,
  role: z.enum(['primary', 'secondary']),
  zone: z.string().default('local'),
  blueprint: name.describe('The blueprint this cell was made from; its newest version is taken.'),
  instances: z
    .array(instanceSchema)
    .default([])
    .describe('Where the cell answers. Leave empty for a cell that a provider runs: its instances are then observed.'),
});

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

export const blueprintSchema = z.strictObject({
  kind: z.literal('Blueprint'),
  name,
  provider: z.enum(['process']).default('process'),
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
  }),
  capacity: z
    .strictObject({ requestsPerSecond: z.number().positive() })
    .describe('What the whole cell was shown to carry within the objective.'),
  dataSync: z.strictObject({ kind: z.literal('none') }).default({ kind: 'none' }),
  readiness: z
    .strictObject({ path: z.string().startsWith('/').default('/healthz'), timeoutS: z.number().min(0.5).default(20) })
    .prefault({}),
  warmUp: z.array(warmUpStepSchema).default([]),
});

export const documentKinds = ['Service', 'Cell', 'Blueprint'] as const;

export const documentSchema = z.discriminatedUnion('kind', [serviceSchema, cellSchema, blueprintSchema]);

export type DrillPolicy = z.infer<typeof drillSchema>;
export type BlockedWindow = z.infer<typeof blockedWindowSchema>;
export type Policy = z.infer<typeof policySchema>;
export type ServiceDocument = z.infer<typeof serviceSchema>;
export type CellDocument = z.infer<typeof cellSchema>;
export type BlueprintDocument = z.infer<typeof blueprintSchema>;
export type WarmUpStep = z.infer<typeof warmUpStepSchema>;
export type Instance = z.infer<typeof instanceSchema>;
export type Document = z.infer<typeof documentSchema>;
