/** Follows failovers: every new line of one, or every change of phase of all, until it ends or is stopped. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from '@temporalio/client';
import type { Settings } from '../../blueprints/settings';
import type { DossierEntry } from '../../workflows/messages';
import { listFailovers } from './list';
import { readStory } from './story';
import { entryLine } from './text';

const everyMs = 1000;

/** One failover, to its end. Answers its outcome. */
export async function watchOne(
  client: Client,
  settings: Settings,
  failover: string,
  say: (line: string) => void,
): Promise<string> {
  const known = new Set<string>();
  const keyOf = (e: DossierEntry) => `${e.at} ${e.what}`;
  for (let from = ''; ; await sleep(everyMs)) {
    const story = await readStory(client, settings, failover);
    if (story.from !== from && story.from === 'replay' && story.dossier.endedAt === null) {
      say('(no worker answers: this is read from the history; orders are kept until a worker runs)');
    }
    from = story.from;
    for (const entry of story.dossier.entries) {
      if (known.has(keyOf(entry))) continue;
      known.add(keyOf(entry));
      say(entryLine(entry));
    }
    const { outcome } = story.dossier;
    if (outcome !== null) return outcome;
    const { status } = await client.workflow.getHandle(failover).describe();
    if (status.name !== 'RUNNING') return status.name.toLowerCase();
  }
}

/** All that are open; runs until the signal. */
export async function watchAll(client: Client, say: (line: string) => void, signal?: AbortSignal): Promise<void> {
  const known = new Map<string, string>();
  while (!signal?.aborted) {
    const failovers = (await listFailovers(client)).reverse();
    const isFirst = known.size === 0;
    for (const f of failovers) {
      const standing = `${f.phase} ${f.outcome}`.trim();
      const isNews = known.get(f.runId) !== standing;
      known.set(f.runId, standing);
      if (!isNews || (isFirst && f.status !== 'running')) continue;
      const risk = f.risk === null ? '' : `, risk ${f.risk.toFixed(2)}`;
      say(`${new Date().toISOString().slice(11, 19)}  ${f.failover}${f.drill ? ' (drill)' : ''}: ${standing}${risk}`);
    }
    await sleep(everyMs, undefined, signal ? { signal } : {}).catch(() => undefined);
  }
}
