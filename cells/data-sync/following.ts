/** Turns the cells that have no part in a handover to the new owner beside it: no share waits until they were told. */
import type { Progress } from './handover';

export class Following {
  /** By service. */
  private readonly rounds = new Map<string, Promise<void>>();
  private readonly troubles = new Map<string, string[]>();

  /** Tells them in the background, unless somebody is being told in this service already. `tell` ends in bounded time. */
  begin(service: string, tell: (report: Progress) => Promise<void>): void {
    if (this.rounds.has(service)) return;
    const troubles: string[] = [];
    const round = tell((sentence) => troubles.push(sentence))
      .catch((error: Error) => troubles.push(error.message))
      .then(() => {
        this.troubles.set(service, troubles);
        this.rounds.delete(service);
      });
    this.rounds.set(service, round);
  }

  /** Before anybody else becomes the owner: whoever is told late to follow the one before would throw away what it has. */
  async over(service: string): Promise<void> {
    await this.rounds.get(service);
  }

  /** Who could not be told in the last round that has ended, one sentence each; asked for once. */
  takeTroubles(service: string): string[] {
    const troubles = this.troubles.get(service) ?? [];
    this.troubles.delete(service);
    return troubles;
  }
}
