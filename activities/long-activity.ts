/** What activities that run for as long as a worker lives have in common: they beat while their work turns, and rotate. */
import { Context } from '@temporalio/activity';

export interface LongActivity {
  /** What the work has done so far; told to the server with each beat. It hangs while `turns` stands still. */
  progress: () => { turns: number };
  /** How often to beat. @default 1000 */
  beatEveryMs?: number | undefined;
  /** The activity ends normally after this long and is started anew: its workflow stays short. @default 55 minutes */
  rotateAfterMs?: number | undefined;
  /** Ends it sooner if it ends. */
  work?: Promise<void>;
}

/** Resolves when it is time to be started anew. Rejects with the cancellation, be it an order or a worker's shutdown. */
export async function untilRotation({ progress, beatEveryMs, rotateAfterMs, work }: LongActivity): Promise<void> {
  const context = Context.current();
  context.heartbeat();
  let turns = -1;
  const beat = setInterval(() => {
    const now = progress();
    // Work that hangs must not be kept alive by its timer: without progress there is no beat.
    if (now.turns === turns) return;
    turns = now.turns;
    context.heartbeat(now);
  }, beatEveryMs ?? 1_000);
  let rotation: NodeJS.Timeout | undefined;
  try {
    const rotate = new Promise<void>((resolve) => (rotation = setTimeout(resolve, rotateAfterMs ?? 55 * 60_000)));
    await Promise.race([context.cancelled, rotate, ...(work ? [work] : [])]);
  } finally {
    clearInterval(beat);
    clearTimeout(rotation);
  }
}
