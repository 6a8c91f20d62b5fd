/** What clients of a stateful service asked and were told, with times of one clock: all that the checker looks at. */

interface Asked {
  client: number;
  /** Which cell was asked; it may have handed the request on. */
  cell: string;
  /** Milliseconds of the clients' one monotonic clock. */
  startMs: number;
  endMs: number;
  /** ok: answered as asked. failed: surely not done. unknown: done or not, now or later. */
  outcome: 'ok' | 'failed' | 'unknown';
}

export type HistoryEntry = Asked &
  (
    | { kind: 'append'; list: string; value: string }
    | { kind: 'set'; register: string; version: number; value: string }
    /** `values` and `version` count only where the outcome is ok. */
    | { kind: 'read-list'; list: string; mayBeStale: boolean; values: string[] }
    | { kind: 'read-register'; register: string; mayBeStale: boolean; version: number; value: string }
  );

export type History = HistoryEntry[];
