/**
 * The cells behind the Envoy of the benchmark, in a process of their own: each answers after 5 to 45 ms, so that there is
 * always something in flight, and counts by the path of the request. Told the cells' names as arguments.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What the process says first. */
export interface CellsReady {
  ports: Record<string, number>;
}

/** Of each cell: requests that came with this path, requests that came at all, and those not answered yet. */
export type CellCounts = Record<string, { ofPath: number; requests: number; inFlight: number }>;

const byPath = new Map<string, Map<string, number>>();
const totals: Record<string, { requests: number; inFlight: number }> = {};

async function startCell(cell: string): Promise<number> {
  const paths = new Map<string, number>();
  byPath.set(cell, paths);
  const total = (totals[cell] = { requests: 0, inFlight: 0 });
  const server = createServer((request, response) => {
    const path = request.url ?? '';
    if (path === '/healthz') return void response.end();
    paths.set(path, (paths.get(path) ?? 0) + 1);
    total.requests += 1;
    total.inFlight += 1;
    response.once('close', () => (total.inFlight -= 1));
    setTimeout(() => response.end(cell), 5 + 40 * Math.random());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

function counts(path: string): CellCounts {
  return Object.fromEntries(
    [...byPath].map(([cell, paths]) => [cell, { ofPath: paths.get(path) ?? 0, ...totals[cell]! }]),
  );
}

async function main(): Promise<void> {
  const ports: Record<string, number> = {};
  for (const cell of process.argv.slice(2)) ports[cell] = await startCell(cell);
  process.on('message', (path: string) => process.send!(counts(path)));
  process.on('disconnect', () => process.exit());
  process.send!({ ports } satisfies CellsReady);
}

if (require.main === module) void main();
