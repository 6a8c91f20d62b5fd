/** Cells of the Postgres service as processes, each with a server of its own behind a line that can be cut. */
import { join } from 'node:path';
import { PostgresReplica } from '../../cells/data-sync/postgres';
import { releasePorts, reservePorts } from '../../local/ports';
import type { Stack } from '../../local/stack';
import { packageRoot } from '../../package-root';
import { TcpProxy } from '../chaos/tcp-proxy';
import { seededRandom } from '../random';
import type { FaultyCell } from './faulted-handover';
import { faultsOf } from './faulty-process';
import { urlOf } from './postgres-server';

export interface PostgresWorld {
  sync: PostgresReplica;
  source: FaultyCell;
  synthetic: FaultyCell;
  stop(): Promise<void>;
}

/** Of the lab only, for servers of the loopback interface that live for a minute. */
export const labPassword = 'lab';

/** A source and a synthetic cell that has nothing yet. `name` is the service's; it must be new to the stack. */
export async function postgresWorld(stack: Stack, name: string, seed: number): Promise<PostgresWorld> {
  const source = await startCell(stack, `${name}-a`, seed, true);
  const synthetic = await startCell(stack, `${name}-b`, seed + 1, false);
  const sync = new PostgresReplica({
    url: urlOf('cell', labPassword),
    path: '/data-sync',
    limit: { behind: 16 * 1024 * 1024, seconds: 10 },
  });
  return {
    sync,
    source,
    synthetic,
    async stop() {
      await Promise.all([source.stop(), synthetic.stop(), sync.close()]);
    },
  };
}

async function startCell(
  stack: Stack,
  cell: string,
  seed: number,
  bootstrap: boolean,
): Promise<FaultyCell & { stop(): Promise<void> }> {
  const [port, databasePort] = (await reservePorts(2)) as [number, number];
  const line = await TcpProxy.start({ host: '127.0.0.1', port: databasePort }, seededRandom(seed));
  const given = {
    cell,
    port: String(port),
    dir: join(stack.dir, 'stateful', cell),
    'database-port': String(databasePort),
    'database-at': `127.0.0.1:${line.port}`,
  };
  const managed = await stack.startAlso({
    name: cell,
    command: process.execPath,
    args: [
      '--enable-source-maps',
      join(packageRoot, 'dist/lab/stateful/postgres-service.js'),
      ...Object.entries(given).flatMap(([flag, value]) => [`--${flag}`, value]),
      ...(bootstrap ? ['--bootstrap'] : []),
    ],
    env: { DATABASE_PASSWORD: labPassword },
    logFile: join(stack.dir, 'stateful', `${cell}.log`),
    ready: (process_) => process_.output().includes('answers on'),
    stopSignal: 'SIGKILL',
  });
  return {
    name: cell,
    instances: [{ address: '127.0.0.1', port }],
    ...faultsOf(managed, line),
    async stop() {
      await managed.stop();
      await line.stop();
      releasePorts([port, databasePort]);
    },
  };
}
