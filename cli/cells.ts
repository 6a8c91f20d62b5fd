/** `understudy cells`: what the providers run, and what of it nobody answers for any more. */
import { Command } from 'commander';
import { loadSettings } from '../blueprints/settings';
import { providersOf } from '../cells/providers';
import { sweepCells, type Sweep } from '../cells/sweep';
import { cellsStatusCommand } from './cells-status';
import { startCellsCommand, stopCellsCommand } from './start-cells';
import { asColumns, settingsOption, withStore } from './temporal';

export function cellsCommand(): Command {
  return new Command('cells')
    .description('What the providers run.')
    .addCommand(startCellsCommand())
    .addCommand(stopCellsCommand())
    .addCommand(cellsStatusCommand())
    .addCommand(sweepCommand());
}

function sweepCommand(): Command {
  return new Command('sweep')
    .description(
      'Find cells that a crash left behind: known to nobody, their lease lapsed. Removes them only if told to.',
    )
    .addOption(settingsOption())
    .option('--dry-run', 'find and say, change nothing (so it is, too, without any option)')
    .option('--remove', 'remove the orphans')
    .option('--json', 'as JSON')
    .action(async (options: { settings: string; dryRun?: boolean; remove?: boolean; json?: boolean }) => {
      if (options.dryRun && options.remove) throw new Error('Either --dry-run or --remove.');
      const settings = loadSettings(options.settings);
      const remove = options.remove === true;
      const sweep = await withStore(settings, (store) => sweepCells(store, providersOf(settings), { remove }));
      console.log(options.json ? JSON.stringify(sweep, null, 2) : sweepText(sweep, remove));
      const isAnyLeft = sweep.cells.some(({ removed }) => removed === false);
      if (isAnyLeft || sweep.silent.length > 0) process.exitCode = 1;
    });
}

export function sweepText({ cells, silent }: Sweep, remove: boolean): string {
  const rows = cells.map(({ provider, cell, phase, owner, isOrphan, removed, trouble, why }) => {
    const verdict = !isOrphan ? 'kept' : removed === null ? 'orphan' : removed ? 'removed' : 'not removed';
    return [provider, cell, phase, owner || '-', verdict, trouble === undefined ? why : `${why}; ${trouble}`];
  });
  const orphans = cells.filter(({ isOrphan }) => isOrphan).length;
  const lines = silent.map(({ provider, trouble }) => `Provider ${provider} could not be asked: ${trouble}`);
  if (rows.length > 0) lines.push(asColumns([['PROVIDER', 'CELL', 'PHASE', 'OWNER', 'VERDICT', 'WHY'], ...rows]));
  if (orphans === 0) lines.push('Nothing is left behind.');
  else if (!remove) lines.push(`${orphans} to be removed, by the same command with --remove.`);
  return lines.join('\n');
}
