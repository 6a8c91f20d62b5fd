/** Waits until the proxies have answered for a publication, and says what became of it. */
import type { ResourceKey } from '../resources/resource';
import type { AdsStream } from './stream';

/** What became of a publication, by node id. */
export interface Acknowledgements {
  acked: string[];
  nacked: { node: string; type: string; resource: string; error: string }[];
  /** Connected, but had not answered by the deadline. */
  pending: string[];
  /** Was connected when the wait began and has gone without an answer. */
  gone: string[];
  /** From the beginning of the wait to the last answer. */
  tookMs: number;
}

interface Wait {
  keys: readonly ResourceKey[];
  /** The update whose outcome is waited for; a later one counts as well. */
  sequence: number;
  asked: readonly AdsStream[];
  /** Of those asked, the ones that have not answered and are still there. */
  pending: Set<AdsStream>;
  began: number;
  lastAnswer: number;
  finish: () => void;
}

export class Waits {
  private readonly waits = new Set<Wait>();

  constructor(private readonly isConnected: (stream: AdsStream) => boolean) {}

  begin(asked: AdsStream[], keys: ResourceKey[], sequence: number, waitMs: number): Promise<Acknowledgements> {
    return new Promise((resolve) => {
      const began = performance.now();
      const finish = (): void => {
        clearTimeout(timer);
        this.waits.delete(wait);
        resolve(this.read(wait));
      };
      const wait: Wait = { keys, sequence, asked, pending: new Set(asked), began, lastAnswer: began, finish };
      const timer = setTimeout(finish, waitMs);
      this.waits.add(wait);
      this.review(wait, asked);
    });
  }

  /**
   * This stream has said something or is gone. An answer concerns one stream only: to look at all of a thousand at
   * each of a thousand answers would be a million looks per step.
   */
  heard(stream: AdsStream): void {
    for (const wait of this.waits) if (wait.pending.has(stream)) this.review(wait, [stream]);
  }

  /** Something was published: what was waited for may have been overtaken. */
  published(): void {
    for (const wait of this.waits) this.review(wait, wait.pending);
  }

  /** Says at once how all waits stand. */
  close(): void {
    for (const { finish } of [...this.waits]) finish();
  }

  private review(wait: Wait, streams: Iterable<AdsStream>): void {
    for (const stream of streams) {
      const isPending = stream.standing(wait.keys, wait.sequence).standing === 'pending';
      if (isPending && this.isConnected(stream)) continue;
      wait.pending.delete(stream);
      if (!isPending) wait.lastAnswer = performance.now();
    }
    if (wait.pending.size === 0) wait.finish();
  }

  private read({ asked, keys, sequence, began, lastAnswer }: Wait): Acknowledgements {
    const result: Acknowledgements = { acked: [], nacked: [], pending: [], gone: [], tookMs: lastAnswer - began };
    for (const stream of asked) {
      const { standing, refused } = stream.standing(keys, sequence);
      if (standing === 'acked') result.acked.push(stream.node);
      else if (standing === 'pending') (this.isConnected(stream) ? result.pending : result.gone).push(stream.node);
      for (const { key, error } of refused)
        result.nacked.push({ node: stream.node, type: key.type, resource: key.name, error });
    }
    return result;
  }
}
