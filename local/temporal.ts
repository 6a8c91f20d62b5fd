/** A real Temporal server with its UI, one process over one SQLite file. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Connection } from '@temporalio/client';
import { searchAttributes } from '../workflows/messages';
import { partBinary } from './parts';
import type { ProcessSpec } from './process';

const typeNames = { KEYWORD: 'Keyword', DOUBLE: 'Double' } as const;

/** The search attributes as the server's command line names them: `FailoverPhase=Keyword`. */
export function searchAttributeArguments(): string[] {
  return Object.entries(searchAttributes).map(([name, type]) => `${name}=${typeNames[type]}`);
}

export interface TemporalPorts {
  frontend: number;
  ui: number;
  http: number;
  metrics: number;
}

export function prepareTemporal(dir: string, ports: TemporalPorts, namespace: string): ProcessSpec {
  mkdirSync(dir, { recursive: true });
  const address = `127.0.0.1:${ports.frontend}`;
  return {
    name: 'temporal',
    command: partBinary('temporal'),
    args: [
      ...['server', 'start-dev', '--ip', '127.0.0.1', '--namespace', namespace],
      ...['--port', String(ports.frontend), '--ui-port', String(ports.ui), '--ui-disable-news-fetch'],
      ...['--http-port', String(ports.http), '--metrics-port', String(ports.metrics)],
      ...['--db-filename', join(dir, 'temporal.db')],
      ...['--sqlite-pragma', 'journal_mode=WAL', '--sqlite-pragma', 'synchronous=OFF'],
      ...searchAttributeArguments().flatMap((attribute) => ['--search-attribute', attribute]),
      // New attributes are usable at once instead of after the cache's minute.
      ...['--dynamic-config-value', 'system.forceSearchAttributesCacheRefreshOnRead=true'],
      ...['--log-level', 'error'],
    ],
    // Without a home of its own the CLI would read, and could be changed by, the user's configuration.
    env: { XDG_CONFIG_HOME: dir },
    logFile: join(dir, 'temporal.log'),
    ready: () => knowsNamespace(address, namespace),
    // Its inner services take free ports at random, which another process may take first.
    startAttempts: 3,
  };
}

async function knowsNamespace(address: string, namespace: string): Promise<boolean> {
  const connection = await Connection.connect({ address, connectTimeout: '1s' });
  try {
    await connection.workflowService.describeNamespace({ namespace });
    const { customAttributes } = await connection.operatorService.listSearchAttributes({ namespace });
    return Object.keys(searchAttributes).every((name) => name in (customAttributes ?? {}));
  } finally {
    await connection.close();
  }
}
