/** An xDS server as a process of its own, to be killed: publishes what its parent sends it. */
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { pino } from 'pino';
import type { Resource } from '../../envoy/resources/resource';
import { XdsServer } from '../../envoy/xds/server';

const xds = new XdsServer({ log: pino({ level: 'silent' }) });
const server = new Server();
xds.addTo(server);
let isBound = false;

process.on('message', (resources: Resource[]) => {
  xds.publish(resources);
  if (isBound) return;
  isBound = true;
  server.bindAsync(`127.0.0.1:${process.argv[2]}`, ServerCredentials.createInsecure(), (error, port) => {
    if (error) throw error;
    process.send!({ port });
  });
});
process.on('disconnect', () => process.exit(0));
setInterval(() => process.send?.({ proxies: xds.proxies(), ...xds.counts }), 20);
