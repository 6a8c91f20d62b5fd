/**
 * Replays the histories in a folder as a release's check does, and says how long it took. A process of its own: the
 * SDK follows every promise of the process that replays, also those that are not the workflow's.
 * Forked as `replay-histories.js DIR PART OF`: says `ready`, waits for any message, replays its part and says the milliseconds.
 */
import { once } from 'node:events';
import { fork } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { historyFromJSON, historyToJSON } from '@temporalio/common/lib/proto-utils';
import { DefaultLogger, Runtime, Worker, bundleWorkflowCode, type ReplayHistoriesIterable } from '@temporalio/worker';
import { packageRoot } from '../package-root';

export interface NamedHistory {
  workflowId: string;
  history: Parameters<typeof historyToJSON>[0];
}

/** Milliseconds until so many processes have replayed them all; each takes its part. Throws if one does not replay. */
export async function replay(histories: readonly NamedHistory[], processes: number): Promise<number> {
  const dir = mkdtempSync(join(tmpdir(), 'understudy-histories-'));
  let parts: ReturnType<typeof fork>[] = [];
  try {
    for (const [i, { workflowId, history }] of histories.entries()) {
      const named = { workflowId, history: JSON.parse(historyToJSON(history)) as unknown };
      writeFileSync(join(dir, `${String(i).padStart(5, '0')}.json`), JSON.stringify(named));
    }
    parts = Array.from({ length: processes }, (_, part) => fork(__filename, [dir, `${part}`, `${processes}`]));
    await Promise.all(parts.map((part) => answerOf(part)));
    const beganMs = performance.now();
    for (const part of parts) part.send('go');
    await Promise.all(parts.map((part) => answerOf(part)));
    const tookMs = performance.now() - beganMs;
    return tookMs;
  } finally {
    for (const part of parts) part.kill();
    rmSync(dir, { recursive: true, force: true });
  }
}

async function answerOf(part: ReturnType<typeof fork>): Promise<void> {
  const over = new AbortController();
  const { signal } = over;
  const ended = once(part, 'exit', { signal }).then(() =>
    Promise.reject(new Error('histories do not replay, see above')),
  );
  try {
    await Promise.race([once(part, 'message', { signal }), ended]);
  } finally {
    ended.catch(() => undefined);
    over.abort();
  }
}

async function replayPart(dir: string, part: number, of: number): Promise<void> {
  const logger = new DefaultLogger('ERROR');
  Runtime.install({ logger, shutdownSignals: [] });
  const workflowsPath = join(packageRoot, 'dist', 'workflows', 'index.js');
  const workflowBundle = await bundleWorkflowCode({ workflowsPath, logger });
  const histories = readdirSync(dir)
    .sort()
    .filter((_, i) => i % of === part)
    .map((file) => {
      const { workflowId, history } = JSON.parse(readFileSync(join(dir, file), 'utf8')) as {
        workflowId: string;
        history: unknown;
      };
      return { workflowId, history: historyFromJSON(history) };
    });
  const run = async (some: typeof histories) => {
    const source = (async function* () {
      for (const one of some) yield one;
    })() as ReplayHistoriesIterable;
    for await (const { workflowId, error } of Worker.runReplayHistories(
      { workflowBundle, reuseV8Context: true },
      source,
    ))
      if (error) throw new Error(`${workflowId} does not replay: ${error.message}`);
  };
  // The first one pays for the worker and the isolate.
  await run(histories.slice(0, 1));
  const asked = once(process, 'message');
  process.send!('ready');
  await asked;
  await run(histories);
  process.send!('done');
}

if (require.main === module) {
  const [dir, part, of] = process.argv.slice(2);
  replayPart(dir!, Number(part), Number(of)).catch((error: unknown) => {
    process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    process.exit(1);
  });
}
