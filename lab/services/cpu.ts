/** Burning CPU on purpose, measured in CPU time and not in wall time, so that a quota makes it take longer. */

const shortSliceMs = 4;
let sink = 0;

/** Blocks until this process has used `ms` milliseconds of CPU. */
export function burnNow(ms: number): void {
  const began = process.cpuUsage();
  for (;;) {
    for (let i = 0; i < 20_000; i++) sink = (Math.imul(sink ^ i, 0x9e3779b1) + 1) | 0;
    const { user, system } = process.cpuUsage(began);
    if (user + system >= ms * 1000) return;
  }
}

/** Uses `ms` milliseconds of CPU in slices, so that health checks and telemetry still get their turn. */
export async function burn(ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= shortSliceMs) {
    burnNow(Math.min(left, shortSliceMs));
    if (left > shortSliceMs) await new Promise((resolve) => setImmediate(resolve));
  }
}

/** The fault `cpu-burn`: a share of one core, in slices at irregular times beside the requests. */
export class CpuBurn {
  private share = 0;
  private owedMs = 0;
  private lastAt = 0;
  private timer: NodeJS.Timeout | undefined;

  /** @param sliceMs CPU time used in one piece, in which nothing else gets its turn */
  constructor(private readonly sliceMs = shortSliceMs) {}

  set(share: number): void {
    const isBurning = this.share > 0;
    this.share = share;
    // A share that changes does not begin anew: what is owed stays owed.
    if (share > 0 && isBurning) return;
    clearTimeout(this.timer);
    if (share <= 0) return;
    this.owedMs = 0;
    this.lastAt = performance.now();
    this.next();
  }

  private next(): void {
    const lackingMs = this.sliceMs - this.owedMs;
    const waitMs = lackingMs <= 0 ? 0 : Math.min(1000, ((0.5 + Math.random()) * lackingMs) / this.share);
    this.timer = setTimeout(() => {
      const now = performance.now();
      // Capped: a process that was starved of CPU does not make up for all of it at once.
      this.owedMs = Math.min(this.owedMs + this.share * (now - this.lastAt), 20 * this.sliceMs);
      this.lastAt = now;
      const slice = Math.min(this.owedMs, this.sliceMs);
      burnNow(slice);
      this.owedMs -= slice;
      this.next();
    }, waitMs);
  }
}
