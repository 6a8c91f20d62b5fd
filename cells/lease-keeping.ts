/** Renews the leases of the cells that the store knows, as long as a worker lives. */
import type { SyntheticCellManager } from './manager';

export interface LeaseKeeping {
  stop(): Promise<void>;
}

/** Now, and then four times within a lease: two rounds may fail before one lapses. */
export function startLeaseKeeping(
  manager: Pick<SyntheticCellManager, 'renewLeases'>,
  leaseS: number,
  report: (error: Error) => void,
): LeaseKeeping {
  let running: Promise<unknown> = Promise.resolve();
  const round = () => (running = running.then(() => manager.renewLeases()).catch(report));
  void round();
  // A longer timer would fire at once.
  const timer = setInterval(() => void round(), Math.min((leaseS * 1000) / 4, 2 ** 31 - 1));
  return {
    stop: async () => {
      clearInterval(timer);
      await running;
    },
  };
}
