/** `understudy ledger`: what failovers averted and what they cost, by service and month. */
import { writeFileSync } from 'node:fs';
import { Command } from 'commander';
import type { LedgerLine } from '../blueprints/ledger';
import { loadSettings } from '../blueprints/settings';
import { incidentOf } from './ledger-incidents';
import { asColumns, settingsOption, withStore } from './temporal';

/** More than a service of many cells has in years. */
const mostDossiers = 100_000;

export function ledgerCommand(): Command {
  return new Command('ledger')
    .description('Minutes averted, false alarms and standby cell-hours, by service and month.')
    .addOption(settingsOption())
    .option('--service <service>', 'of this service only')
    .option('--json', 'as JSON')
    .option('--incidents <file>', 'write what the labels teach as incidents for understudy train and evaluate')
    .action(async (options: { settings: string; service?: string; json?: boolean; incidents?: string }) => {
      if (options.incidents !== undefined) return writeIncidents(options.incidents, options);
      const lines = await withStore(loadSettings(options.settings), (store) => store.ledger(options.service));
      console.log(options.json ? JSON.stringify(lines, null, 2) : ledgerText(lines));
    });
}

async function writeIncidents(file: string, options: { settings: string; service?: string }): Promise<void> {
  const dossiers = await withStore(loadSettings(options.settings), (store) => store.dossiers(mostDossiers));
  const wanted = dossiers.filter((d) => options.service === undefined || d.service === options.service);
  const incidents = wanted.flatMap((dossier) => incidentOf(dossier) ?? []);
  writeFileSync(file, incidents.map((incident) => `${JSON.stringify(incident)}\n`).join(''));
  const count = (label: string): number => incidents.filter((incident) => incident.label === label).length;
  const [confirmed, missed] = [count('confirmed'), count('missed')];
  const uncertain = incidents.length - confirmed - missed;
  console.log(
    `${file}: ${confirmed} confirmed and ${missed} missed failures and ${uncertain} times of uncertain outcome, ` +
      `from ${wanted.length} failovers. False alarms are no incidents.`,
  );
}

export function ledgerText(lines: readonly LedgerLine[]): string {
  if (lines.length === 0) return 'The ledger is empty: no failover has ended yet.';
  const head = ['MONTH', 'SERVICE', 'FAILOVERS', 'CONFIRMED', 'AVERTED', 'FALSE', 'MISSED', 'UNKNOWN', 'DRILLS'];
  const sums = ['MIN AVERTED', 'MIN EXPECTED', 'STANDBY CELL-H'];
  const rows = lines.map((l) => [
    ...[l.month, l.service, l.failovers, l.confirmed, l.averted, l.falseAlarms, l.missed, l.unknown, l.drills].map(
      String,
    ),
    ...[l.avertedMinutes, l.expectedMinutes].map((minutes) => minutes.toFixed(1)),
    l.standbyCellHours.toFixed(2),
  ]);
  return asColumns([[...head, ...sums], ...rows]);
}
