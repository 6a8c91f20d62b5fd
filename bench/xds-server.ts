/**
 * The control plane's xDS server in processes of its own, for benchmarks: publishes the shares that are posted to it.
 * Run as `node dist/bench/xds-server.js --ca FILE --cert FILE --key FILE [--processes N]`; prints its ports and process
 * ids as one line of JSON. `GET` on its control port answers what it has counted.
 */
import { Server } from '@grpc/grpc-js';
import cluster from 'node:cluster';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { parseArgs } from 'node:util';
import { pino } from 'pino';
import { isSupervisor, supervise, tellReady } from '../envoy/processes';
import { serverCredentials } from '../envoy/security/credentials';
import { WatchedTls } from '../envoy/security/watched-tls';
import { grpcOptions } from '../envoy/xds/grpc-options';
import { listen } from '../envoy/xds/listen';
import { XdsServer } from '../envoy/xds/server';
import { resourcesAt } from './xds-resources';

type Counts = Record<string, number>;

const { values } = parseArgs({
  options: {
    ca: { type: 'string', default: '' },
    cert: { type: 'string', default: '' },
    key: { type: 'string', default: '' },
    processes: { type: 'string', default: '1' },
  },
});
const processes = Number(values.processes);
const log = pino({ level: 'warn' }, pino.destination(2));

/** One serving process: `publish` answers once the change is on its way. */
async function serve(): Promise<{ port: number; publish: (weights: number[]) => void; counts: () => Counts }> {
  const xds = new XdsServer({ log });
  xds.publish(resourcesAt([10_000]));
  const server = new Server(grpcOptions());
  xds.addTo(server);
  const files = { certificateFile: values.cert, privateKeyFile: values.key, caFile: values.ca };
  const credentials = serverCredentials(new WatchedTls(files, { what: 'xDS', log }));
  const { port } = await listen(server, '127.0.0.1:0', credentials);
  const publish = (weights: number[]): void => {
    const changed = xds.publish(resourcesAt(weights));
    // As the traffic API does: somebody waits for every proxy's answer.
    if (changed.length > 0) void xds.acknowledgements(changed, 5000);
  };
  return { port, publish, counts: () => ({ ...xds.counts, ...xds.work }) };
}

function control(
  port: number,
  pids: number[],
  publish: (weights: number[]) => Promise<void>,
  counts: () => Promise<Counts>,
) {
  const http = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
    request.on('end', () => {
      const done = request.method === 'POST' ? publish((JSON.parse(body) as { weights: number[] }).weights) : undefined;
      void Promise.resolve(done)
        .then(counts)
        .then((counted) => response.end(JSON.stringify(counted)));
    });
  });
  http.listen({ port: 0, host: '127.0.0.1', exclusive: true }, () => {
    const { port: controlPort } = http.address() as AddressInfo;
    process.stdout.write(`${JSON.stringify({ port, controlPort, pid: process.pid, pids })}\n`);
  });
}

interface FromWorker {
  port?: number;
  counts?: Counts;
}

/** In several processes: each publishes what the first is told. Of what each counts, the most is told. */
async function superviseAll(): Promise<void> {
  let port = 0;
  const waiting: ((counts: Counts) => void)[] = [];
  cluster.on('message', (_worker, message: FromWorker) => {
    port = message.port ?? port;
    if (message.counts) waiting.shift()?.(message.counts);
  });
  const { pids, stop } = await supervise(processes, log);
  process.on('SIGTERM', () => void stop().then(() => process.exit(0)));
  const all = Object.values(cluster.workers ?? {}).flatMap((worker) => (worker ? [worker] : []));
  const tell = async (message: object): Promise<Counts> => {
    const answers = all.map(() => new Promise<Counts>((resolve) => waiting.push(resolve)));
    for (const worker of all) worker.send(message);
    const merged: Counts = {};
    for (const counts of await Promise.all(answers))
      for (const [name, value] of Object.entries(counts)) merged[name] = Math.max(merged[name] ?? 0, value);
    return merged;
  };
  const publish = async (weights: number[]): Promise<void> => void (await tell({ weights }));
  control(port, [process.pid, ...pids()], publish, () => tell({}));
}

async function main(): Promise<void> {
  if (isSupervisor(processes)) return superviseAll();
  const { port, publish, counts } = await serve();
  if (cluster.isPrimary) {
    control(
      port,
      [process.pid],
      (weights) => Promise.resolve(publish(weights)),
      () => Promise.resolve(counts()),
    );
    return;
  }
  process.on('SIGTERM', () => process.exit(0));
  process.on('message', ({ weights }: { weights?: number[] }) => {
    if (weights) publish(weights);
    process.send!({ counts: counts() });
  });
  process.send!({ port });
  tellReady();
}

void main();
