/** Looks for texts in everything that a stack has written or shows of itself: histories, tables, files, processes. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Client } from '@temporalio/client';
import { Pool } from 'pg';
import type { Stack } from '../../local/stack';
import { recordedCellProcesses } from '../../local/cell-processes';

/** One thing that a person, a log collector or a backup could read, such as `table audit.details`. */
export interface Place {
  where: string;
  text: string;
}

/** Every place as of now; read one after the other, since files of databases are large. */
export async function* placesOf(stack: Stack, client: Client): AsyncGenerator<Place> {
  yield* histories(client);
  yield* tables(stack.addresses.postgresUrl);
  yield* processes(stack);
  for (const address of stack.addresses.envoyAdmin) {
    const dump = await fetch(`http://${address}/config_dump?include_eds`);
    yield { where: `envoy ${address}`, text: await dump.text() };
  }
  // Logs, records of the provider, the settings file, and the databases once more as they lie on disk.
  for (const file of filesUnder(stack.dir)) yield { where: `file ${file}`, text: readIfThere(join(stack.dir, file)) };
}

/** Where each text was found, by text. The forms in which a text travels as well: base64, and escaped as in JSON. */
export async function findEverywhere(
  texts: readonly string[],
  places: AsyncIterable<Place>,
): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>(texts.map((text) => [text, []]));
  const forms = texts.map((text): [string, string[]] => [text, formsOf(text)]);
  for await (const { where, text } of places)
    for (const [wanted, each] of forms) if (each.some((form) => text.includes(form))) found.get(wanted)!.push(where);
  return found;
}

function formsOf(text: string): string[] {
  const inBase64 = [0, 1, 2].map((before) => {
    // Of a text in the middle of another the first and the last characters depend on their neighbours.
    const encoded = Buffer.concat([Buffer.alloc(before), Buffer.from(text)]).toString('base64');
    return encoded.slice(before === 0 ? 0 : 4, -4);
  });
  return [text, JSON.stringify(text).slice(1, -1), Buffer.from(text).toString('hex'), ...inBase64];
}

/** Every run of every workflow, whole: inputs, results, signals, heartbeats, failures, memos, in plain text. */
async function* histories(client: Client): AsyncGenerator<Place> {
  for await (const { workflowId, runId, raw } of client.workflow.list()) {
    yield { where: `description ${workflowId}`, text: plainText(raw) };
    const history = await client.workflow.getHandle(workflowId, runId).fetchHistory();
    yield { where: `history ${workflowId}`, text: plainText(history) };
  }
}

/** Payloads are bytes: as the text that they are. */
function plainText(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) => {
    // Buffers come as what their toJSON makes of them.
    const { type, data } = (part ?? {}) as { type?: unknown; data?: unknown };
    if (type === 'Buffer' && Array.isArray(data)) return Buffer.from(data as number[]).toString('utf8');
    if (part instanceof Uint8Array) return Buffer.from(part).toString('utf8');
    return typeof part === 'bigint' ? String(part) : part;
  });
}

async function* tables(url: string): AsyncGenerator<Place> {
  const pool = new Pool({ connectionString: url, max: 1 });
  try {
    const { rows } = await pool.query<{ schema: string; name: string }>(
      `select table_schema as schema, table_name as name from information_schema.tables
       where table_type = 'BASE TABLE' and table_schema not in ('pg_catalog', 'information_schema')`,
    );
    for (const { schema, name } of rows) {
      const all = await pool.query<{ text: string }>(`select to_jsonb(t)::text as text from "${schema}"."${name}" t`);
      yield { where: `table ${name}`, text: all.rows.map(({ text }) => text).join('\n') };
    }
  } finally {
    await pool.end();
  }
}

function* processes(stack: Stack): Generator<Place> {
  const own = stack.processes.map(({ name, pid }): [string, number | undefined] => [name, pid]);
  const cells = recordedCellProcesses(stack.settings.processProvider.stateDir).map(({ pid }): [string, number] => [
    'cell',
    pid,
  ]);
  for (const [name, pid] of [...own, ...cells])
    for (const what of ['cmdline', 'environ'])
      if (pid !== undefined) yield { where: `${what} ${name}`, text: readIfThere(`/proc/${pid}/${what}`) };
}

function filesUnder(folder: string, below = ''): string[] {
  const entries = ifThere(() => readdirSync(join(folder, below), { withFileTypes: true })) ?? [];
  return entries.flatMap((entry) => {
    const path = join(below, entry.name);
    return entry.isDirectory() ? filesUnder(folder, path) : entry.isFile() ? [path] : [];
  });
}

/** Byte by byte: databases write other things than text. */
function readIfThere(file: string): string {
  return ifThere(() => readFileSync(file, 'latin1')) ?? '';
}

/** A file, a folder or a process may have gone since it was listed. */
function ifThere<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
}
