/** What the engine counts, by name and reason; read by logs, heartbeats and tests. */
export type CounterName =
  | 'records'
  | 'samples'
  | 'samples.late'
  | 'samples.ignored'
  | 'samples.unit-doubted'
  | 'samples.stale'
  | 'samples.future'
  | 'dead-letters'
  | 'dead-letters.suppressed'
  | 'scores'
  | 'ticks'
  | 'ticks.rebuilt'
  | 'events'
  | 'events.accepted'
  | 'events.failed'
  | 'commits'
  | 'commits.failed'
  | 'publish.failed'
  | 'records.skipped'
  | 'shadow.scores'
  | 'shadow.diverged'
  | 'shadow.failed'
  | 'shadow.dropped'
  | 'model-health.failed'
  | 'windows.snapshots'
  | 'windows.cells'
  | 'windows.bytes'
  | 'windows.failed'
  | 'windows.refused'
  | 'windows.restored'
  | `problem.${string}`
  | `ignored.${string}`;

export class Counters {
  private readonly counts = new Map<CounterName, number>();

  add(name: CounterName, by = 1): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + by);
  }

  get(name: CounterName): number {
    return this.counts.get(name) ?? 0;
  }

  all(): Record<string, number> {
    return Object.fromEntries([...this.counts].sort(([a], [b]) => (a < b ? -1 : 1)));
  }
}
