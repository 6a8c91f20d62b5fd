/** Which offset of a partition may be committed: the one before which every record's ticks are done. */

interface Entry {
  /** All records before `nextOffset` need ticks up to here. */
  tickMs: number;
  nextOffset: number;
}

export class CommitLedger {
  private readonly entries: Entry[] = [];
  private committedOffset: number | undefined;
  private readyOffset = 0;

  /** `committed`: null if nothing ever was. */
  constructor(committed: number | null) {
    this.committedOffset = committed ?? undefined;
  }

  /** What is committed, or could be; undefined if nothing is. */
  get position(): number | undefined {
    return this.committedOffset;
  }

  /** A record was read; `tickMs` is the last tick its samples belong to, or undefined if it held none. */
  read(offset: number, tickMs: number | undefined): void {
    const last = this.entries[this.entries.length - 1];
    const needed = Math.max(last?.tickMs ?? -Infinity, tickMs ?? -Infinity);
    if (last && last.tickMs === needed) last.nextOffset = offset + 1;
    else this.entries.push({ tickMs: needed, nextOffset: offset + 1 });
  }

  /** The offset to commit now that all ticks up to `doneTickMs` are done; undefined if there is nothing new. */
  advance(doneTickMs: number): number | undefined {
    while (this.entries.length > 0 && (this.entries[0] as Entry).tickMs <= doneTickMs) {
      this.readyOffset = (this.entries.shift() as Entry).nextOffset;
    }
    return this.readyOffset > (this.committedOffset ?? 0) ? this.readyOffset : undefined;
  }

  /** The offset before which no record needs a tick after this one. Changes nothing. */
  dealtWith(doneTickMs: number): number {
    let offset = Math.max(this.readyOffset, this.committedOffset ?? 0);
    for (const { tickMs, nextOffset } of this.entries) {
      if (tickMs > doneTickMs) break;
      offset = Math.max(offset, nextOffset);
    }
    return offset;
  }

  /** The commit has succeeded; until then `advance` answers the same offset or a later one. */
  committed(offset: number): void {
    if (offset > (this.committedOffset ?? 0)) this.committedOffset = offset;
  }
}
