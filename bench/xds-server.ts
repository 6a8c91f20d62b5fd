/**
 * The control plane's xDS server as a process of its own, for benchmarks: publishes the shares that are posted to it.
 * Run as `node dist/bench/xds-server.js --ca FILE --cert FILE --key FILE`; prints one line of JSON with its addresses.
 */
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { parseArgs } from 'node:util';
import { pino } from 'pino';
import { XdsServer } from '../envoy/xds/server';
import { resourcesAt } from './xds-resources';

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { ca: { type: 'string' }, cert: { type: 'string' }, key: { type: 'string' } },
  });
  const xds = new XdsServer({ log: pino({ level: 'warn' }, pino.destination(2)) });
  let encoded = 0;
  xds.publish(resourcesAt([10_000]));
  const server = new Server({ 'grpc.max_concurrent_streams': 10_000, 'grpc.keepalive_time_ms': 30_000 });
  xds.addTo(server);
  const credentials = values.cert
    ? ServerCredentials.createSsl(
        readFileSync(values.ca!),
        [{ cert_chain: readFileSync(values.cert), private_key: readFileSync(values.key!) }],
        true,
      )
    : ServerCredentials.createInsecure();
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', credentials, (error, bound) => (error ? reject(error) : resolve(bound))),
  );
  const control = createServer((request, response) => {
    if (request.method !== 'POST') return response.end(JSON.stringify({ ...xds.counts, encoded }));
    let body = '';
    request.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
    request.on('end', () => {
      const changed = xds.publish(resourcesAt((JSON.parse(body) as { weights: number[] }).weights));
      encoded += changed.length;
      response.end(JSON.stringify({ changed }));
    });
  });
  control.listen(0, '127.0.0.1', () => {
    const { port: controlPort } = control.address() as AddressInfo;
    process.stdout.write(`${JSON.stringify({ port, controlPort, pid: process.pid })}\n`);
  });
}

void main();
