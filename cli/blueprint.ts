/** `understudy blueprint`: compares blueprints, drafts one from what runs, and shows where cells have drifted from theirs. */
import { existsSync, readFileSync } from 'node:fs';
import { Command, InvalidArgumentError } from 'commander';
import { parseDocuments } from '../blueprints/apply';
import { diffBlueprints, diffText } from '../blueprints/blueprint-diff';
import type { CellRecord } from '../blueprints/records';
import { blueprintSchema, type BlueprintDocument } from '../blueprints/schema';
import { loadSettings, type Settings } from '../blueprints/settings';
import type { ConfigurationStore } from '../blueprints/store';
import { driftOfCell, processOf, readinessPathOf, type CellDrift } from '../cells/capture/capture-cell';
import { captureService, parseRunningCell } from '../cells/capture/capture-service';
import { captureProcess } from '../cells/capture/captured';
import { draftBlueprint, draftText, type Draft } from '../cells/capture/draft';
import type { RunningCell } from '../cells/capture/draft-service';
import { ProcessProvider } from '../cells/process-provider';
import type { PlacedInstance } from '../cells/protection/read-back';
import { withStore } from './temporal';

const settingsHelp = 'where Postgres is, among others; needed for what the store holds';

export function blueprintCommand(): Command {
  return new Command('blueprint')
    .description('Compare blueprints, draft one from what runs, show where cells have drifted from theirs.')
    .addCommand(diffCommand())
    .addCommand(captureCommand())
    .addCommand(driftCommand());
}

function diffCommand(): Command {
  return new Command('diff')
    .description('How two blueprints differ, and what of it weakens protection or capacity. Ends with 1 if it does.')
    .argument('<A>', 'a file, a file#name, name, name@version, or a running cell')
    .argument('<B>', 'the same')
    .option('--settings <file>', settingsHelp)
    .option('--json', 'as JSON')
    .action(async (a: string, b: string, options: { settings?: string; json?: boolean }) => {
      const [from, to] = [await named(a, options.settings), await named(b, options.settings)];
      const found = diffBlueprints(from, to);
      console.log(options.json ? JSON.stringify(found, null, 2) : diffText(found));
      if (found.some(({ change }) => change === 'weaker' || change === 'less')) process.exitCode = 1;
    });
}

function captureCommand(): Command {
  return new Command('capture')
    .description(
      'A draft from what runs on this machine, as YAML with remarks: of a whole service, its cells and their blueprint, or of a blueprint alone.',
    )
    .argument('[cell]', 'the blueprint of a cell that is in the store')
    .option('--service <name>', 'the whole service of this name; with --cell')
    .option('--cell <name=port,port...>', 'a cell of it and where its instances answer; once for each', runningCells)
    .option('--listener <port>', 'where Envoy is to accept callers of the service', portNumber, 10_080)
    .option('--pid <pid>', 'the blueprint of this process', processId)
    .option('--name <name>', "the blueprint's name (default: the cell's blueprint, or captured)")
    .option('--settings <file>', settingsHelp)
    .action(async (cell: string | undefined, options: CaptureOptions) => {
      const ways = [cell, options.pid, options.service].filter((way) => way !== undefined);
      if (ways.length !== 1 || (options.service === undefined) !== (options.cell === undefined))
        throw new Error(
          'Capture what? A service by --service NAME --cell NAME=PORT,PORT ..., a process by --pid, or name a cell of the store.',
        );
      if (options.service !== undefined)
        return drafted(options.service, { listenerPort: options.listener, cells: options.cell! });
      const draft =
        cell === undefined
          ? await draftOfProcess(options.pid!, { name: options.name ?? 'captured' })
          : await withStoreOf(options.settings, (store, settings) => draftOfCell(store, settings, cell, options.name));
      process.stdout.write(draftText(draft));
    });
}

interface CaptureOptions {
  service?: string;
  cell?: RunningCell[];
  listener: number;
  pid?: number;
  name?: string;
  settings?: string;
}

/** The draft goes to standard output, what a person should know of it to standard error. */
async function drafted(service: string, of: { listenerPort: number; cells: RunningCell[] }): Promise<void> {
  const { text, differences } = await captureService({ service, ...of });
  process.stdout.write(text);
  for (const difference of differences) console.error(difference);
}

function driftCommand(): Command {
  return new Command('drift')
    .description(
      'Where running cells differ from their blueprints, as far as it can be seen here. Ends with 1 if any does.',
    )
    .argument('[cell]', 'only this one')
    .requiredOption('--settings <file>', settingsHelp)
    .option('--json', 'as JSON')
    .action(async (only: string | undefined, options: { settings: string; json?: boolean }) => {
      const found = await withStoreOf(options.settings, (store, settings) => driftOfCells(store, settings, only));
      console.log(options.json ? JSON.stringify(found, null, 2) : found.map(driftText).join('\n'));
      if (found.some(({ drift }) => drift.length > 0)) process.exitCode = 1;
    });
}

function processId(text: string): number {
  const pid = Number(text);
  if (Number.isInteger(pid) && pid > 0) return pid;
  throw new InvalidArgumentError('expected the number of a process.');
}

function portNumber(text: string): number {
  const port = Number(text);
  if (Number.isInteger(port) && port > 0 && port < 65_536) return port;
  throw new InvalidArgumentError('expected the number of a port.');
}

function runningCells(text: string, before: RunningCell[] = []): RunningCell[] {
  try {
    return [...before, parseRunningCell(text)];
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

async function withStoreOf<T>(
  file: string | undefined,
  use: (store: ConfigurationStore, settings: Settings) => Promise<T>,
): Promise<T> {
  if (file === undefined) throw new Error('Where is the store? Name its settings by --settings FILE.');
  const settings = loadSettings(file);
  return withStore(settings, (store) => use(store, settings));
}

/** The blueprint that a person means: of a file, of the store, or of what a cell really runs. */
async function named(text: string, settingsFile: string | undefined): Promise<BlueprintDocument> {
  const [file = '', wanted] = text.split('#');
  if (existsSync(file)) {
    const documents = parseDocuments(readFileSync(file, 'utf8'), file).filter((one) => one.kind === 'Blueprint');
    const chosen = wanted === undefined ? documents : documents.filter(({ name }) => name === wanted);
    if (chosen.length === 1) return chosen[0]!;
    throw new Error(
      `${text}: ${chosen.length === 0 ? 'there is no such blueprint' : `there are ${chosen.length} blueprints, name one by ${file}#NAME`}`,
    );
  }
  return withStoreOf(settingsFile, async (store, settings) => {
    const [name = '', version] = text.split('@');
    const found = await store.blueprint(name, version === undefined ? undefined : Number(version));
    if (found) return found.spec;
    if (!(await store.cell(text))) throw new Error(`${text} is no file, no blueprint of the store and no cell`);
    return blueprintSchema.parse((await draftOfCell(store, settings, text)).document);
  });
}

async function draftOfProcess(pid: number, of: Omit<Parameters<typeof draftBlueprint>[0], 'captured'>): Promise<Draft> {
  const captured = await captureProcess(pid, { askVersions: true });
  const { listens } = captured.protection;
  const first = listens[0];
  const readinessPath = first && (await readinessPathOf(reachable(first.address), first.port));
  return draftBlueprint({ ...of, captured, readinessPath, surroundings: process.env });
}

const reachable = (address: string) => ({ '0.0.0.0': '127.0.0.1', '::': '::1' })[address] ?? address;

async function draftOfCell(store: ConfigurationStore, settings: Settings, name: string, as?: string): Promise<Draft> {
  const cell = await store.cell(name);
  if (!cell) throw new Error(`There is no cell ${name} in the store.`);
  const instances = await instancesOf(cell, settings);
  for (const instance of instances) {
    const pid = await processOf(instance);
    if (pid === undefined) continue;
    const words = { service: cell.service, cell: cell.name, instance: instance.name };
    return draftOfProcess(pid, { name: as ?? cell.blueprint.name, instances: instances.length, words });
  }
  throw new Error(`No process of ${name} can be seen on this machine: capture it where it runs, by --pid.`);
}

/** With their pids where the process provider runs them, else as they are recorded. */
async function instancesOf(cell: CellRecord, settings: Settings): Promise<PlacedInstance[]> {
  const { instances } = await new ProcessProvider(settings.processProvider).observe(cell.name);
  return instances.length > 0 ? instances : cell.instances;
}

export interface NamedCellDrift extends CellDrift {
  cell: string;
  blueprint: string;
}

async function driftOfCells(store: ConfigurationStore, settings: Settings, only?: string): Promise<NamedCellDrift[]> {
  const cells = (await store.cells()).filter(({ name, role }) =>
    only === undefined ? role !== 'synthetic' : name === only,
  );
  if (only !== undefined && cells.length === 0) throw new Error(`There is no cell ${only} in the store.`);
  const found: NamedCellDrift[] = [];
  for (const cell of cells) {
    const version = await store.blueprint(cell.blueprint.name, cell.blueprint.version);
    if (!version) continue;
    const peers = (await store.cells(cell.service)).flatMap(({ instances }) => instances);
    const drift = await driftOfCell(await instancesOf(cell, settings), version.spec, { askVersions: true, peers });
    found.push({ cell: cell.name, blueprint: `${version.name}@${version.version}`, ...drift });
  }
  return found;
}

export function driftText({ cell, blueprint, compared, drift }: NamedCellDrift): string {
  if (compared.length === 0) return `${cell}: not seen on this machine`;
  if (drift.length === 0) return `${cell}: as ${blueprint} says (${compared.join(', ')})`;
  const lines = drift.map(({ path, matters, text }) => `  ${matters}: ${path}: ${text}`);
  return [`${cell}: has drifted from ${blueprint}`, ...lines].join('\n');
}
