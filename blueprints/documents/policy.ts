/** How a service wants to be protected: the part `policy` of a Service. */
import { z } from 'zod';
import { basisPoints, name, probability } from './fields';

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

/** The prices from which follows how many synthetic cells wait idle. Any currency, the same for all. */
const poolSchema = z.strictObject({
  outageCostPerMinute: z.number().min(0).default(10).describe('What a minute of outage of one cell costs.'),
  cellCostPerHour: z.number().min(0).default(0.1).describe('What a running cell costs.'),
  idleCostShare: probability
    .default(0.1)
    .describe(
      'What an idle cell costs that keeps its memory (frozen, paused), as a share of a running one. 1: an idle cell goes on running.',
    ),
  stoppedCostShare: probability
    .default(0)
    .describe(
      'The same where idle cells rest stopped: 0, unless what is kept of them has a price, as the disks of a cloud.',
    ),
  failuresPerCellMonth: z
    .number()
    .min(0)
    .default(1)
    .describe('Predicted failures of a cell in 30 days, while too few have been seen.'),
  lateShare: probability
    .default(0.1)
    .describe('Share of predictions that come too late to make a cell from nothing, while too few have been seen.'),
  mostIdle: z.number().int().min(0).max(16).default(1).describe('However cheap they are, no more wait idle.'),
  keepAtMostS: z.number().min(0).default(2_592_000).describe('However cheap it is, no cell waits idle for longer.'),
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
  wayBack: z
    .strictObject({
      calmS: z
        .number()
        .min(0)
        .default(60)
        .describe(
          'Seconds for which the risk of a relieved source must have gone before traffic goes back; doubled each time it returns.',
        ),
      firstBp: basisPoints.min(1).default(500).describe('Share given back first, to a source that carries nothing.'),
    })
    .prefault({})
    .describe('A source that hardly works shows no risk: it is not believed at once to be well.'),
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
  pool: poolSchema
    .prefault({})
    .describe('What an idle synthetic cell costs and is worth: see `understudy pool explain`.'),
  drill: drillSchema.optional().describe('Practice predictions by schedule. Left out: none.'),
  maxConcurrentFailovers: z.number().int().min(1).default(1).describe('More failovers of the service than this wait.'),
  ...caution,
});

export type DrillPolicy = z.infer<typeof drillSchema>;
export type BlockedWindow = z.infer<typeof blockedWindowSchema>;
export type Policy = z.infer<typeof policySchema>;
