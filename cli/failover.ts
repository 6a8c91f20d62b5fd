/** `understudy failover list|show` and `understudy override`: what failovers do and did, and a person's orders to them. */
import { Client, Connection, WorkflowNotFoundError, WorkflowUpdateFailedError } from '@temporalio/client';
import { Argument, Command, InvalidArgumentError, Option } from 'commander';
import { loadSettings, type Settings } from '../blueprints/settings';
import { ConfigurationStore } from '../blueprints/store';
import type { Dossier, Override, OverrideAction, OverrideAnswer } from '../workflows/messages';
import {
  failoverWorkflowId,
  overrideActions,
  queryNames,
  signalNames,
  updateNames,
  workflowTypes,
} from '../workflows/messages';

/** An update that no worker takes within this time is sent as a signal, which the server keeps. */
const workerAnswersWithinMs = 3000;

const settingsOption = () => new Option('--settings <file>', 'settings of Understudy').makeOptionMandatory();

export function failoverCommand(): Command {
  const failover = new Command('failover').description('Failovers under way and past.');
  failover
    .command('list')
    .description('All failovers that Temporal still knows, the newest first.')
    .addOption(settingsOption())
    .option('--json', 'as JSON')
    .action((options: { settings: string; json?: boolean }) =>
      withTemporal(options.settings, async (client) => {
        const failovers = await listFailovers(client);
        console.log(options.json ? JSON.stringify(failovers, null, 2) : asTable(failovers));
      }),
    );
  failover
    .command('show')
    .description('The dossier of a failover: what it saw, decided and did, and why.')
    .argument('<failover>', 'service/cell, or the workflow id')
    .addOption(settingsOption())
    .option('--json', 'as JSON')
    .action((id: string, options: { settings: string; json?: boolean }) =>
      withTemporal(options.settings, async (client, settings) => {
        const dossier = await findDossier(client, settings, asWorkflowId(id));
        console.log(options.json ? JSON.stringify(dossier, null, 2) : asText(dossier));
      }),
    );
  return failover;
}

export function overrideCommand(): Command {
  return new Command('override')
    .description('Orders a failover that is under way to do something, and answers whether it will.')
    .argument('<service>')
    .argument('<cell>', 'the source: the cell that is predicted to fail')
    .addArgument(new Argument('<action>').choices(overrideActions))
    .addOption(settingsOption())
    .requiredOption('--by <name>', 'who orders it')
    .requiredOption('--reason <text>', 'why')
    .option('--share-bp <bp>', 'for step: share of the service in basis points', wholeNumber)
    .action(
      (
        service: string,
        cell: string,
        action: OverrideAction,
        options: { settings: string; by: string; reason: string; shareBp?: number },
      ) =>
        withTemporal(options.settings, async (client) => {
          const { by, reason, shareBp } = options;
          const override: Override = { action, by, reason, ...(shareBp !== undefined && { shareBp }) };
          const { accepted, message } = await sendOverride(client, service, cell, override);
          console.log(`${accepted ? 'accepted' : 'refused'}: ${message}`);
          if (!accepted) process.exitCode = 1;
        }),
    );
}

/**
 * As an update, which answers; if no worker is there to answer, as a signal, which the server keeps until one is. An
 * order that arrives both ways is heard once: the second finds it in force and is refused.
 */
export async function sendOverride(
  client: Client,
  service: string,
  cell: string,
  override: Override,
): Promise<OverrideAnswer> {
  const handle = client.workflow.getHandle(failoverWorkflowId(service, cell));
  try {
    return await client.withDeadline(Date.now() + workerAnswersWithinMs, () =>
      handle.executeUpdate<OverrideAnswer, [Override]>(updateNames.override, { args: [override] }),
    );
  } catch (err) {
    if (err instanceof WorkflowUpdateFailedError) {
      return { accepted: false, message: err.cause?.message ?? err.message };
    }
    if (err instanceof WorkflowNotFoundError) {
      return { accepted: false, message: `no failover of ${service}/${cell} is under way` };
    }
    await handle.signal(signalNames.override, override);
    return {
      accepted: true,
      message: 'no worker answered; the order was left as a signal and is heard as soon as one runs',
    };
  }
}

export interface ListedFailover {
  failover: string;
  phase: string;
  outcome: string;
  risk: number | null;
  status: string;
  startedAt: string;
}

export async function listFailovers(client: Client): Promise<ListedFailover[]> {
  const listed: ListedFailover[] = [];
  for await (const run of client.workflow.list({ query: `WorkflowType = '${workflowTypes.predictiveFailover}'` })) {
    const of = (name: string) => run.searchAttributes[name]?.[0];
    listed.push({
      failover: run.workflowId,
      phase: (of('FailoverPhase') as string | undefined) ?? '',
      outcome: (of('FailoverOutcome') as string | undefined) ?? '',
      risk: (of('RiskScore') as number | undefined) ?? null,
      status: run.status.name.toLowerCase(),
      startedAt: run.startTime.toISOString(),
    });
  }
  return listed.sort((a, b) => b.startedAt.localeCompare(a.startedAt));
}

/** From the run itself while a worker can answer for it, else as it was kept when the run ended. */
async function findDossier(client: Client, settings: Settings, failover: string): Promise<Dossier> {
  try {
    return await client.withDeadline(Date.now() + workerAnswersWithinMs, () =>
      client.workflow.getHandle(failover).query<Dossier>(queryNames.dossier),
    );
  } catch {
    const store = await ConfigurationStore.connect(settings.postgres.url, { timeoutMs: 5000 });
    try {
      const kept = await store.dossier(failover);
      if (!kept) throw new Error(`there is no dossier of ${failover}: neither a run answers for it nor was one kept`);
      return kept;
    } finally {
      await store.close();
    }
  }
}

export function asText(d: Dossier): string {
  const lines = [
    `${d.service} / ${d.cell}: ${d.outcome ?? `${d.phase} (under way)`}`,
    ...(d.reason ? [`  ${d.reason}`] : []),
    `  failover ${d.failover}, run ${d.runId}`,
    `  synthetic cell ${d.syntheticCell ?? 'none'}`,
    `  from ${d.startedAt}${d.endedAt ? ` to ${d.endedAt}` : ''}`,
    '',
    `  phases  ${d.phaseTimes.map((p) => `${p.phase} ${clock(p.at)}`).join('  ▶  ')}`,
    '',
  ];
  for (const { at, split, epoch, acknowledgedBy, reason } of d.steps) {
    const shares = Object.entries(split).map(([cell, bp]) => `${cell} ${bp / 100} %`);
    lines.push(`  ${clock(at)}  epoch ${epoch}: ${shares.join(', ')} (${acknowledgedBy} proxies; ${reason})`);
  }
  if (d.steps.length > 0) lines.push('');
  for (const { at, phase, what } of d.entries) lines.push(`  ${clock(at)}  ${phase.padEnd(12)} ${what}`);
  return lines.join('\n');
}

function asTable(failovers: ListedFailover[]): string {
  if (failovers.length === 0) return 'No failovers.';
  const rows = failovers.map((f) => [
    f.failover,
    f.phase,
    f.outcome || '-',
    f.risk === null ? '-' : f.risk.toFixed(2),
    f.status,
    f.startedAt,
  ]);
  const table = [['FAILOVER', 'PHASE', 'OUTCOME', 'RISK', 'RUN', 'STARTED'], ...rows];
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)));
  return table
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

function clock(at: string): string {
  return at.slice(11, 23);
}

function asWorkflowId(id: string): string {
  return id.startsWith('failover/') ? id : `failover/${id}`;
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > 10_000) {
    throw new InvalidArgumentError('expected basis points, 1 to 10000');
  }
  return value;
}

async function withTemporal(
  settingsFile: string,
  use: (client: Client, settings: Settings) => Promise<void>,
): Promise<void> {
  const settings = loadSettings(settingsFile);
  const { address, namespace } = settings.temporal;
  const connection = await Connection.connect({ address, connectTimeout: '5s' }).catch((err: unknown) => {
    throw new Error(`Temporal does not answer at ${address}: ${(err as Error).message}`);
  });
  try {
    await use(new Client({ connection, namespace }), settings);
  } finally {
    await connection.close();
  }
}
