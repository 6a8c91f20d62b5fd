/** `understudy setup` and `understudy up`: from a checkout to a running stack on this machine. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import type { ConfigurationStore } from '../blueprints/store';
import { packageRoot } from '../package-root';
import { sentenceOf, tellFirstLook } from './apply';

export function setupCommand(): Command {
  return new Command('setup')
    .description('Get and check everything that Understudy runs on. Does nothing where nothing is missing.')
    .action(async () => {
      const child = spawn(process.execPath, [join(packageRoot, 'local', 'bootstrap.cjs'), 'setup'], {
        stdio: 'inherit',
      });
      const [code] = (await once(child, 'exit')) as [number | null];
      process.exitCode = code ?? 1;
    });
}

interface UpOptions {
  file?: string;
  settings?: string;
  dir?: string;
  proxies: number;
}

export function upCommand(): Command {
  return new Command('up')
    .description('Start Kafka, Temporal, Postgres, Understudy and Envoy on this machine, until Ctrl-C.')
    .option('-f, --file <file>', 'YAML file of services, cells and blueprints to apply')
    .option('--settings <file>', 'YAML file of settings; addresses of what is started here are filled in')
    .option('--dir <dir>', 'keep logs and data here, and go on from what is there (default: a new folder, removed)')
    .option('--proxies <n>', 'how many Envoys', wholeNumber, 1)
    .action(up);
}

async function up({ file, settings, dir, proxies }: UpOptions): Promise<void> {
  const { startStack, formatStack } = await import('../local/stack.js');
  const { loadOwnSettings } = await import('../local/own-settings.js');
  const own = settings === undefined ? {} : loadOwnSettings(settings);
  const ending = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => ending.abort());
  let failure: Error | undefined;

  const stack = await startStack({
    ...(dir !== undefined && { dir }),
    settings: own,
    envoyCount: proxies,
    signal: ending.signal,
    onProgress: (sentence) => console.log(sentence),
    onFailure: (error) => {
      failure = error;
      ending.abort();
    },
  }).catch((error: unknown) => {
    if (ending.signal.aborted) return undefined;
    throw error;
  });
  if (!stack) return console.log('Stopped before all was up.');

  try {
    const listeners = file === undefined ? [] : await applyDocuments(stack.addresses.postgresUrl, file);
    console.log(`\n${[formatStack(stack), ...listeners].join('\n')}\n\nUnderstudy is up. Ctrl-C stops all of it.`);
    if (!ending.signal.aborted) await once(ending.signal, 'abort');
  } finally {
    console.log('Stopping ...');
    await stack.stop();
  }
  if (failure) throw failure;
  console.log('Stopped.');
}

/** Answers where callers of the services go. */
async function applyDocuments(postgresUrl: string, file: string): Promise<string[]> {
  const { ConfigurationStore } = await import('../blueprints/store.js');
  const { applyFile } = await import('../blueprints/apply.js');
  const store = await ConfigurationStore.connect(postgresUrl);
  try {
    for (const change of await applyFile(store, file)) console.log(sentenceOf(change));
    await tellFirstLook(file);
    const services = await store.services();
    return [
      ...services.map(
        ({ name, spec: { listener } }) => `Callers of ${name} go to ${listener.address}:${listener.port}`,
      ),
      ...(await Promise.all(services.map(({ name }) => sharesOfEndedCells(store, name)))).flat(),
    ];
  } finally {
    await store.close();
  }
}

/** A kept folder remembers a split of which the stand-ins ended with the stack: their callers are answered by nobody. */
async function sharesOfEndedCells(
  store: Pick<ConfigurationStore, 'traffic' | 'cells'>,
  service: string,
): Promise<string[]> {
  const split = (await store.traffic(service))?.split ?? [];
  const cells = await store.cells(service);
  return split.flatMap(({ cell, shareBp }) => {
    const standIn = cells.find(({ name, role }) => name === cell && role === 'synthetic');
    if (!standIn || shareBp === 0) return [];
    const order = `understudy failover drain ${service}/${standIn.sourceCell ?? 'CELL'} --reason restarted --settings FILE`;
    return [
      `ATTENTION: ${shareBp / 100} % of ${service} goes to ${cell}, which ended when this stack was stopped. Under autonomy approve or act: ${order}`,
    ];
  });
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new InvalidArgumentError('expected a whole number above 0.');
}
