/** A client of Temporal for one command, and the option by which commands find their servers. */
import { Client, Connection } from '@temporalio/client';
import { Option } from 'commander';
import { loadSettings, type Settings } from '../blueprints/settings';
import { ConfigurationStore } from '../blueprints/store';

export const settingsOption = () => new Option('--settings <file>', 'settings of Understudy').makeOptionMandatory();

export async function withTemporal(
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

export async function withStore<T>(settings: Settings, use: (store: ConfigurationStore) => Promise<T>): Promise<T> {
  const store = await ConfigurationStore.connect(settings.postgres.url, { timeoutMs: 5000, maxConnections: 2 });
  try {
    return await use(store);
  } finally {
    await store.close();
  }
}

/** Columns as wide as their widest cell. */
export function asColumns(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const line = (row: readonly string[]) => row.map((cell, column) => cell.padEnd(widths[column]!)).join('  ');
  return rows.map((row) => line(row).trimEnd()).join('\n');
}
