/** `understudy cells status`: how idle cells rest, and what the last scheduled looks found: orphans, and drift from blueprints. */
import { Command } from 'commander';
import type { Looked } from '../blueprints/looks';
import type { CellRest } from '../blueprints/records';
import { loadSettings } from '../blueprints/settings';
import type { ConfigurationStore } from '../blueprints/store';
import { settingsOption, withStore } from './temporal';

/** An idle cell of nobody, and how it waits. */
export interface IdleStatus {
  cell: string;
  blueprint: string;
  idleForS: number;
  /** Null: it came to rest before this was recorded. */
  rest: CellRest | null;
}

export interface CellsStatus {
  idle: IdleStatus[];
  sweep: Looked<'sweep'> | null;
  drift: Looked<'drift'> | null;
}

export function cellsStatusCommand(): Command {
  return new Command('status')
    .description(
      'How idle cells rest, and what the last looks found: cells left behind by a crash, and drift from blueprints. Ends with 1 if any.',
    )
    .addOption(settingsOption())
    .option('--json', 'as JSON')
    .action(async (options: { settings: string; json?: boolean }) => {
      const status = await withStore(loadSettings(options.settings), cellsStatus);
      console.log(options.json ? JSON.stringify(status, null, 2) : cellsStatusText(status));
      if (cellsAlarm(status) !== null) process.exitCode = 1;
    });
}

export async function cellsStatus(store: Pick<ConfigurationStore, 'lastLook' | 'idleCells'>): Promise<CellsStatus> {
  const idle = (await store.idleCells()).map(({ cell: { name: cell, blueprint: made, rest = null }, idleForS }) => {
    return { cell, blueprint: `${made.name}@${made.version}`, idleForS, rest };
  });
  return { idle, sweep: (await store.lastLook('sweep')) ?? null, drift: (await store.lastLook('drift')) ?? null };
}

/** One line for where people look anyway; null where all is well. */
export function cellsAlarm({ sweep, drift }: Pick<CellsStatus, 'sweep' | 'drift'>): string | null {
  const orphans = sweep?.orphans.filter(({ removed }) => removed !== true).length ?? 0;
  const drifted = drift?.cells.filter((cell) => cell.drift.length > 0).length ?? 0;
  const silent = (sweep?.silent.length ?? 0) + (drift?.silent.length ?? 0);
  const words = [
    ...(orphans > 0 ? [`${orphans} left behind`] : []),
    ...(drifted > 0 ? [`${drifted} drifted from their blueprint`] : []),
    ...(silent > 0 ? [`${silent} could not be asked`] : []),
  ];
  return words.length === 0 ? null : `Cells: ${words.join(', ')}; see understudy cells status.`;
}

export function cellsStatusText({ idle, sweep, drift }: CellsStatus): string {
  const lines = [`${idle.length} synthetic cells wait idle`];
  for (const { cell, blueprint, idleForS, rest } of idle) {
    const how = rest ? `rests ${rest.how}: ${rest.why}` : 'rests';
    lines.push(`  ${cell} (${blueprint}, idle for ${Math.round(idleForS)} s) ${how}`);
  }
  if (!sweep)
    lines.push('Nobody has looked for cells left behind yet: a failover worker does, every cells.lookEveryS.');
  else {
    lines.push(`${sweep.at}: ${sweep.cells} cells at the providers, ${sweep.orphans.length} left behind`);
    for (const { provider, cell, why, removed, trouble } of sweep.orphans) {
      const end = removed === null ? 'to be removed by cells sweep --remove' : removed ? 'removed' : `kept: ${trouble}`;
      lines.push(`  ${provider} ${cell}: ${why}; ${end}`);
    }
    for (const { provider, trouble } of sweep.silent)
      lines.push(`  provider ${provider} could not be asked: ${trouble}`);
  }
  if (!drift) lines.push('Nobody has looked for drift yet.');
  else {
    const drifted = drift.cells.filter((cell) => cell.drift.length > 0);
    const unseen = drift.silent.length > 0 ? `, ${drift.silent.length} could not be looked at` : '';
    lines.push(
      `${drift.at}: ${drift.cells.length} declared cells seen, ${drifted.length} drifted from their blueprint${unseen}`,
    );
    for (const { cell, blueprint, at, drift: found } of drifted)
      for (const { path, matters, text } of found)
        lines.push(`  ${cell} (${blueprint}, seen ${at}): ${matters}: ${path}: ${text}`);
    for (const { cell, trouble } of drift.silent) lines.push(`  ${cell} could not be looked at: ${trouble}`);
  }
  return lines.join('\n');
}
