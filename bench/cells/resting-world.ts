/** Services with a Synthetic Cell Manager of their own store and providers, for what is measured of making and resting cells. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { CellRecord } from '../../blueprints/records';
import { blueprintSchema, cellSchema, serviceSchema } from '../../blueprints/schema';
import { ConfigurationStore } from '../../blueprints/store';
import { DockerProvider } from '../../cells/docker-provider';
import { request } from '../../cells/http';
import { SyntheticCellManager } from '../../cells/manager';
import { ProcessProvider } from '../../cells/process-provider';
import type { CellProvider, IdleWay } from '../../cells/provider';
import { startDeclaredCell } from '../../cells/source-cells';
import { startEngine, whyNoEngine, type ContainerEngine } from '../../local/container-engine';
import { startStack } from '../../local/stack';
import { packageRoot } from '../../package-root';

export type ProviderKind = 'process' | 'docker';
export type Rest = 'auto' | IdleWay;

export interface RestingService {
  /** Of which cells are to be made; its other cells run beside it. */
  source: string;
  manager: SyntheticCellManager;
  /** Ends its cells. */
  stop(): Promise<void>;
}

export interface RestingWorld {
  /** Those that can be measured here; why another cannot has been told. */
  kinds: ProviderKind[];
  /** Starts a service whose cells rest like this. `enforce`: held to their limits by the system. Default true. */
  service(kind: ProviderKind, rest: Rest, options?: { enforce?: boolean }): Promise<RestingService>;
  stop(): Promise<void>;
}

/** As the settings have it where nobody says otherwise. */
const leaseS = 3600;
const program = join(packageRoot, 'dist', 'lab', 'reference-service.js');
export const items = 2000;
/** Two instances of two slots of 40 ms. */
export const capacityRps = 100;

export async function restingWorld(only: string | undefined): Promise<RestingWorld> {
  const wanted = (['process', 'docker'] as const).filter((kind) => only === undefined || only === kind);
  const stack = await startStack({ parts: ['postgres'] });
  let engine: ContainerEngine | undefined;
  let store: ConfigurationStore | undefined;
  const stop = async () => {
    await store?.close();
    await engine?.close();
    await stack.stop();
  };
  try {
    store = await ConfigurationStore.connect(stack.settings.postgres.url);
    await store.migrate();
    const { stateDir } = stack.settings.processProvider;
    mkdirSync(stateDir, { recursive: true });
    const providers = new Map<ProviderKind, CellProvider>();
    for (const kind of wanted) {
      const obstacle = kind === 'docker' ? await whyNoEngine() : undefined;
      if (obstacle !== undefined) process.stdout.write(`  docker is not measured: ${obstacle}\n`);
      else if (kind === 'process') providers.set(kind, new ProcessProvider({ stateDir }));
      else {
        process.stdout.write('  starting a container engine\n');
        engine = await startEngine([join(packageRoot, 'dist', 'lab')]);
        process.stdout.write(`  the container engine: ${engine.how}\n`);
        providers.set(kind, new DockerProvider({ socketPath: engine.socketPath, installation: 'bench' }));
      }
    }
    const known = store;
    let services = 0;
    return {
      kinds: [...providers.keys()],
      stop,
      service: async (kind, rest, { enforce = true } = {}) => {
        services += 1;
        const made = { kind, rest, enforce, number: services, image: kind === 'docker' ? engine!.image : 'host' };
        return startService(known, providers.get(kind)!, made);
      },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

interface Made {
  kind: ProviderKind;
  rest: Rest;
  enforce: boolean;
  number: number;
  image: string;
}

async function startService(store: ConfigurationStore, provider: CellProvider, made: Made): Promise<RestingService> {
  const name = `${made.kind}-${made.rest}-${made.number}`;
  const cells = [`${name}-a`, `${name}-b`];
  await store.apply(documents(name, cells, made));
  const manager = new SyntheticCellManager(store, provider, leaseS);
  const stop = async () => {
    for (const { cell } of await provider.list()) if (cell.startsWith(`${name}-`)) await provider.destroy(cell);
  };
  try {
    for (const cell of cells) await fill(await startDeclaredCell(provider, store, cell));
  } catch (error) {
    await stop();
    throw error;
  }
  return { source: cells[0]!, manager, stop };
}

/** What a cell that has run for a while has in memory. */
async function fill({ instances }: CellRecord): Promise<void> {
  for (const instance of instances)
    await request(instance, '/admin/preload', { method: 'POST', body: {}, timeoutMs: 20_000 });
}

function documents(name: string, cells: readonly string[], { kind, rest, enforce, number, image }: Made) {
  const flags = { service: '{service}', cell: '{cell}', instance: '{instance}', address: '{address}', port: '{port}' };
  const command = [
    process.execPath,
    '--max-old-space-size={memoryLimitMib}',
    program,
    ...Object.entries({ ...flags, items: String(items) }).flatMap(([flag, value]) => [`--${flag}`, value]),
  ];
  return [
    blueprintSchema.parse({
      kind: 'Blueprint',
      name,
      provider: kind,
      image: { os: image, command },
      resources: { instances: 2, memoryLimitMib: 128, enforce },
      capacity: { requestsPerSecond: capacityRps },
      readiness: { timeoutS: 60 },
      warmUp: [
        { kind: 'preload', path: '/admin/preload', minEntries: items },
        { kind: 'connections', perInstance: 4 },
        { kind: 'probe', path: '/items/1', requests: 20 },
      ],
      scaleDown: { idle: rest },
    }),
    serviceSchema.parse({
      kind: 'Service',
      name,
      listener: { port: 10_080 + number },
      slo: { latencyMs: 250 },
      safeSplit: Object.fromEntries(cells.map((cell) => [cell, 10_000 / cells.length])),
    }),
    ...cells.map((cell, index) =>
      cellSchema.parse({
        kind: 'Cell',
        name: cell,
        service: name,
        role: index === 0 ? 'primary' : 'secondary',
        blueprint: name,
      }),
    ),
  ];
}
