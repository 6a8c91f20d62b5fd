/** Where proxies connect: a port whose queue holds a whole fleet that comes at once, as it does when a replica was away. */
import type { Server, ServerCredentials } from '@grpc/grpc-js';
import { lookup } from 'node:dns/promises';
import { createServer, type AddressInfo, type Server as Listener } from 'node:net';

/**
 * Connections the kernel keeps until they are taken; it cuts this to its own limit (net.core.somaxconn). With Node's 511,
 * which grpc-js cannot be told to change, the kernel drops what comes beyond it in a flood, and those proxies wait minutes.
 */
const backlog = 65_535;

const notHere = new Set(['EADDRNOTAVAIL', 'EAFNOSUPPORT']);

export interface Listening {
  port: number;
  /** Takes no more connections; those that stand go on. */
  stop: () => void;
}

/**
 * Gives the server every connection made to `address`: `host:port`, an IPv6 host in brackets, a name for all that it
 * resolves to on this machine. Throws if one of them is taken, or none is here.
 */
export async function listen(server: Server, address: string, credentials: ServerCredentials): Promise<Listening> {
  const listeners: Listener[] = [];
  const stop = (): void => listeners.forEach((listener) => void listener.close());
  try {
    const { host, port } = hostAndPort(address);
    const injector = server.createConnectionInjector(credentials);
    const addresses = new Set((await lookup(host, { all: true })).map(({ address: ip }) => ip));
    let bound = port;
    let missing: Error | undefined;
    for (const ip of addresses) {
      const listener = createServer({ noDelay: true }, (socket) => injector.injectConnection(socket));
      try {
        bound = await listenOn(listener, ip, bound);
        listeners.push(listener);
      } catch (error) {
        // A name may have an address that this machine does not: `localhost` is often ::1 where there is no IPv6.
        if (!notHere.has((error as NodeJS.ErrnoException).code ?? '')) throw error;
        missing = error as Error;
      }
    }
    if (listeners.length === 0) throw missing ?? new Error('the name has no address');
    return { port: bound, stop };
  } catch (error) {
    stop();
    throw new Error(`${address} cannot be listened on: ${(error as Error).message}`, { cause: error });
  }
}

function listenOn(listener: Listener, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    listener.once('error', reject);
    listener.listen({ host, port, backlog }, () => resolve((listener.address() as AddressInfo).port));
  });
}

function hostAndPort(address: string): { host: string; port: number } {
  const [, bracketed, plain, port] = /^(?:\[(.+)\]|([^:]+)):(\d{1,5})$/.exec(address) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined) throw new Error('give host:port, such as 127.0.0.1:18000 or [::1]:18000');
  return { host, port: Number(port) };
}
