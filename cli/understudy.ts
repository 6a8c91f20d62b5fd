#!/usr/bin/env node
/** The `understudy` command. Each group of commands has a file of its own and is added to the list below. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { packageRoot } from '../package-root';
import { applyCommand } from './apply';
import { caCommand } from './ca';
import { cellsCommand } from './cells';
import { blueprintCommand } from './blueprint';
import { evaluateCommand } from './evaluate';
import { drillCommand } from './drill';
import { failoverCommand, overrideCommand } from './failover';
import { labCommand } from './lab';
import { ledgerCommand } from './ledger';
import { poolCommand } from './pool';
import { reconcileCommand } from './reconcile';
import { auditCommand, proxiesCommand } from './proxies';
import { statusCommand } from './status';
import { resumeCommand, stopCommand } from './stop';
import { trainCommand } from './train';
import { setupCommand, upCommand } from './up';

const { version } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string };

const commands: (() => Command)[] = [
  setupCommand,
  upCommand,
  applyCommand,
  statusCommand,
  blueprintCommand,
  failoverCommand,
  overrideCommand,
  drillCommand,
  reconcileCommand,
  cellsCommand,
  caCommand,
  ledgerCommand,
  poolCommand,
  proxiesCommand,
  auditCommand,
  stopCommand,
  resumeCommand,
  labCommand,
  evaluateCommand,
  trainCommand,
];

async function main(): Promise<void> {
  const program = new Command('understudy')
    .description('Adaptive predictive failover with synthetic cells.')
    .version(version)
    .showHelpAfterError('(see understudy --help)');
  for (const command of commands) program.addCommand(command());
  await program.parseAsync();
}

main().catch((error: unknown) => {
  console.error(`understudy: ${error instanceof Error ? error.message : String(error)}`);
  // Not process.exit(): what is still being cleaned up may finish.
  process.exitCode = 1;
});
