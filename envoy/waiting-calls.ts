/** Counts the calls that wait for proxies, and takes no more of them than may be: of one client, and of this control plane. */
import { TooManyWaitsError } from './traffic-errors';

export interface WaitLimits {
  changesPerClient: number;
  changesAtOnce: number;
}

export class WaitingCalls {
  private readonly byClient = new Map<string, number>();
  private all = 0;

  constructor(private readonly limits: WaitLimits) {}

  /** Answers how to leave. Throws TooManyWaitsError before anything is begun. */
  enter(client: string): () => void {
    const { changesPerClient, changesAtOnce } = this.limits;
    const own = this.byClient.get(client) ?? 0;
    if (own >= changesPerClient) {
      throw new TooManyWaitsError(
        `${client} waits for ${own} changes already, the most it may; nothing was changed, try again when one has been answered`,
      );
    }
    if (this.all >= changesAtOnce) {
      throw new TooManyWaitsError(
        `${this.all} changes are waited for already, the most this control plane takes; nothing was changed, try again or at another`,
      );
    }
    this.all += 1;
    this.byClient.set(client, own + 1);
    return () => {
      this.all -= 1;
      const left = this.byClient.get(client)! - 1;
      if (left === 0) this.byClient.delete(client);
      else this.byClient.set(client, left);
    };
  }
}
