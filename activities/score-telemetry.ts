/** The long-running activity that keeps the scoring loop alive: beats while the loop turns, stops it as cancellation demands. */
import { activityInfo, CancelledFailure, Context } from '@temporalio/activity';
import type { Logger } from 'pino';
import type { EngineProgress } from '../prediction/engine';
import { untilRotation } from './long-activity';

/** The scoring loop, as far as the activity is concerned; `ScoringEngine` is one. */
export interface RunningEngine {
  start(): Promise<void>;
  stop(options: { commit: boolean }): Promise<void>;
  progress(): EngineProgress;
}

export interface ScoreTelemetryDependencies {
  /** A new loop for each attempt: attempts may overlap, they share nothing. */
  newEngine: () => Promise<RunningEngine>;
  log: Logger;
  /** How often to beat. @default 1000 */
  beatEveryMs?: number;
  /** The activity ends normally after this long and is started anew. @default 55 minutes */
  rotateAfterMs?: number;
}

export interface ScoreTelemetryActivities {
  scoreTelemetry(): Promise<void>;
}

export function createScoreTelemetry(dependencies: ScoreTelemetryDependencies): ScoreTelemetryActivities {
  const { newEngine, log, beatEveryMs, rotateAfterMs } = dependencies;

  async function scoreTelemetry(): Promise<void> {
    const context = Context.current();
    context.heartbeat();
    const engine = await newEngine();
    await engine.start();
    log.info({ attempt: activityInfo().attempt }, 'scores telemetry');
    try {
      await untilRotation({ progress: () => engine.progress(), beatEveryMs, rotateAfterMs });
      await engine.stop({ commit: true });
    } catch (error) {
      const details = context.cancellationDetails;
      // Timed out or unknown to the server: another attempt may own the partitions by now.
      const isZombie = details?.timedOut === true || details?.notFound === true;
      log.info(
        { details },
        isZombie ? 'scoring was given to another attempt: stops at once' : 'scoring is being stopped',
      );
      await engine.stop({ commit: !isZombie });
      // Rethrown also at a worker's shutdown: a normal return would complete the activity instead of moving it.
      throw error instanceof CancelledFailure ? error : new CancelledFailure(String(error));
    }
  }

  return { scoreTelemetry };
}
