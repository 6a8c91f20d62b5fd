/** `understudy ledger`: what failovers averted and what they cost, by service and month. */
import { Command } from 'commander';
import type { LedgerLine } from '../blueprints/ledger';
import { loadSettings } from '../blueprints/settings';
import { asColumns, settingsOption, withStore } from './temporal';

export function ledgerCommand(): Command {
  return new Command('ledger')
    .description('Minutes averted, false alarms and standby cell-hours, by service and month.')
    .addOption(settingsOption())
    .option('--service <service>', 'of this service only')
    .option('--json', 'as JSON')
    .action(async (options: { settings: string; service?: string; json?: boolean }) => {
      const lines = await withStore(loadSettings(options.settings), (store) => store.ledger(options.service));
      console.log(options.json ? JSON.stringify(lines, null, 2) : ledgerText(lines));
    });
}

export function ledgerText(lines: readonly LedgerLine[]): string {
  if (lines.length === 0) return 'The ledger is empty: no failover has ended yet.';
  const head = ['MONTH', 'SERVICE', 'FAILOVERS', 'CONFIRMED', 'AVERTED', 'FALSE', 'UNKNOWN', 'DRILLS'];
  const sums = ['MIN AVERTED', 'MIN EXPECTED', 'STANDBY CELL-H'];
  const rows = lines.map((l) => [
    ...[l.month, l.service, l.failovers, l.confirmed, l.averted, l.falseAlarms, l.unknown, l.drills].map(String),
    ...[l.avertedMinutes, l.expectedMinutes].map((minutes) => minutes.toFixed(1)),
    l.standbyCellHours.toFixed(2),
  ]);
  return asColumns([[...head, ...sums], ...rows]);
}
