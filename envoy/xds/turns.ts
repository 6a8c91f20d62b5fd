/**
 * Gives streams their turn to send, some per turn of the event loop. Node hands what was written to the sockets only
 * when the loop goes on: written in one go, the first of a thousand proxies would hear of a change when the last one's
 * response is ready, and the proxies' processors would be idle until then. But at every turn the loop also reads the
 * answers that have come, which can wait: so the first turn is short, and each that follows has twice as many streams.
 */

const firstTurn = 16;
/** Bounds how long other work of the process waits for one turn. */
const longestTurn = 32;

export class Turns<T> {
  /** In the order in which they asked; each once. */
  private readonly due = new Set<T>();
  private scheduled: NodeJS.Immediate | undefined;
  private perTurn = firstTurn;

  constructor(private readonly take: (one: T) => void) {}

  ask(one: T): void {
    this.due.add(one);
    this.scheduled ??= setImmediate(this.turn);
  }

  /** It is gone. */
  forget(one: T): void {
    this.due.delete(one);
  }

  private readonly turn = (): void => {
    let left = this.perTurn;
    for (const one of this.due) {
      if (left-- === 0) break;
      this.due.delete(one);
      this.take(one);
    }
    const isMore = this.due.size > 0;
    this.perTurn = isMore ? Math.min(longestTurn, 2 * this.perTurn) : firstTurn;
    this.scheduled = isMore ? setImmediate(this.turn) : undefined;
  };
}
