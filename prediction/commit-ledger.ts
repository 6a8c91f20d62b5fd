/** Which offset of a partition may be committed: the one before which every record's ticks are done. */

interface Entry {
  /** All records before `nextOffset` need ticks up to here. */
  tickMs: number;
  nextOffset: number;
}

export class CommitLedger {
  private readonly entries: Entry[] = [];
  private committedOffset: number;
  private readyOffset = 0;

  constructor(committed: number) {
    this.committedOffset = committed;
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
    return this.readyOffset > this.committedOffset ? this.readyOffset : undefined;
  }

  /** The commit has succeeded; until then `advance` answers the same offset or a later one. */
  committed(offset: number): void {
    if (offset > this.committedOffset) this.committedOffset = offset;
  }
}
