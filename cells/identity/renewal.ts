/** Renews the certificates of cells before they expire, as long as a worker lives. */
import type { IdentityKeeper, RenewedIdentities } from './keeper';

export interface Renewal {
  stop(): Promise<void>;
}

/** Now, and then eight times within a certificate's life, at least every five minutes: three rounds may fail in its second half. */
export function startRenewal(
  keeper: Pick<IdentityKeeper, 'renewDue'>,
  lifetimeS: number,
  report: (renewed: RenewedIdentities[] | Error) => void,
): Renewal {
  let running: Promise<void> = Promise.resolve();
  const round = () => (running = running.then(() => keeper.renewDue()).then(report, report));
  void round();
  const timer = setInterval(() => void round(), Math.min((lifetimeS * 1000) / 8, 300_000));
  return {
    stop: async () => {
      clearInterval(timer);
      await running;
    },
  };
}
