/** A free TCP port for an instance that keeps it for its life. */
import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';

/** Below the range from which systems take ports for outgoing connections: a restarted instance must find its port free. */
const firstPort = 15_000;
const lastPort = 31_999;

/** Every port of the range is taken: something has to end, or the range to grow. */
export class NoFreePortError extends Error {
  override readonly name = 'NoFreePortError';
}

/** A random port that nobody listens on now and that is not among `taken`. Who binds it first has it. */
export async function chooseFreePort(
  address: string,
  taken: ReadonlySet<number>,
  { from = firstPort, to = lastPort }: { from?: number; to?: number } = {},
): Promise<number> {
  // Of a few ports each is tried, of many some at random: the chance that two callers meet is small.
  const candidates =
    to - from < 500
      ? Array.from({ length: to - from + 1 }, (_, index) => from + index)
      : Array.from({ length: 500 }, () => randomInt(from, to + 1));
  for (const port of candidates) {
    if (!taken.has(port) && (await isFree(address, port))) return port;
  }
  throw new NoFreePortError(
    `There is no free port on ${address} between ${from} and ${to}: too many servers run here.`,
  );
}

export function isFree(address: string, port: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE' || error.code === 'EACCES') resolve(false);
      else reject(new Error(`Nothing can listen on ${address}: ${error.message}`));
    });
    probe.listen(port, address, () => probe.close(() => resolve(true)));
  });
}
