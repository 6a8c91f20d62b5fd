/** Ports for servers of this machine that no other stack takes at the same time. */
import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { releaseLock, takeLock } from './process-identity';

// Below the range from which systems take ports for outgoing connections: a server that comes back must find its port
// free. And below that of cells (blueprints/documents/network.ts), whose providers know nothing of reservations: to them
// the port of a listener that is yet to be made, or of a server that has just been killed, looks free.
const firstPort = 11_000;
const lastPort = 14_999;
const attemptsPerPort = 200;

const held = new Set<number>();

/**
 * Reserves `count` TCP ports of the loopback interface: nobody listens on them now, and nobody who asks here gets them
 * until this process releases them or dies. Those `wanted` are taken at their places, where they are free.
 */
export async function reservePorts(count: number, wanted: readonly number[] = []): Promise<number[]> {
  const ports: number[] = [];
  const tried = new Set<number>();
  for (let attempt = 0; ports.length < count; attempt++) {
    if (attempt > count * attemptsPerPort) {
      releasePorts(ports);
      throw new Error(`No ${count} free ports between ${firstPort} and ${lastPort}: too many servers run here.`);
    }
    const kept = wanted[ports.length];
    const port = kept !== undefined && !tried.has(kept) ? kept : randomInt(firstPort, lastPort + 1);
    tried.add(port);
    if (held.has(port) || takeLock(lockFile(port)) !== null) continue;
    held.add(port);
    if (await isFree(port)) ports.push(port);
    else releasePorts([port]);
  }
  return ports;
}

/** Gives ports back. */
export function releasePorts(ports: readonly number[]): void {
  for (const port of ports) {
    if (held.delete(port)) releaseLock(lockFile(port));
  }
}

function lockFile(port: number): string {
  return join(tmpdir(), 'understudy-ports', String(port));
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
