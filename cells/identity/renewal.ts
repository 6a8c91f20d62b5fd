/** Renews the certificates of cells before they expire, as long as a worker lives. */
import type { IdentityKeeper, RenewedIdentities } from './keeper';

export interface Renewal {
  stop(): Promise<void>;
}

/**
 * Now, and then eight times within a certificate's life: three rounds may fail in its second half. At least every minute,
 * since an authority may give less life than it was asked for.
 */
export function startRenewal(
  keeper: Pick<IdentityKeeper, 'renewDue'>,
  lifetimeS: number,
  report: (renewed: RenewedIdentities[] | Error) => void,
): Renewal {
  let running: Promise<void> | undefined;
  const round = () => {
    // An authority that is slow to answer, or to fail, is not to find the rounds queued up before it.
    running ??= keeper
      .renewDue()
      .then(report, report)
      .finally(() => (running = undefined));
  };
  round();
  const timer = setInterval(round, Math.min((lifetimeS * 1000) / 8, 60_000));
  return {
    stop: async () => {
      clearInterval(timer);
      await running;
    },
  };
}
