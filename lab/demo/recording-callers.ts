/** Callers of the stateful act: they append, set and read through Envoy, write down what they were told, and have it judged. */
import { reportOf, type Load, type LoadReport, type Outcome } from '../load';
import { checkHistory } from '../stateful/checker';
import { Clients } from '../stateful/clients';
import type { History } from '../stateful/history';

/** What became of the data, judged by nothing but what callers were told. */
export interface DataVerdict {
  operations: number;
  acknowledgedWrites: number;
  /** Nobody knows whether they were done: not answered, or answered with an error. A caller may ask again. */
  unknown: number;
  /** Acknowledged and gone. */
  lost: number;
  duplicated: number;
  /** Reads that promise to be current and were not. */
  stale: number;
  /** Each broken promise in a sentence, these and others. */
  violations: string[];
  /** The longest time without an acknowledged write. */
  longestWriteGapMs: number;
}

const staleRules = ['stale-list', 'stale-register', 'register-went-back'];

export function verdictOn(history: History): DataVerdict {
  const violations = checkHistory(history);
  const count = (rules: string[]) => violations.filter(({ rule }) => rules.includes(rule)).length;
  const writes = history
    .filter(({ kind, outcome }) => outcome === 'ok' && (kind === 'append' || kind === 'set'))
    .map(({ endMs }) => endMs)
    .sort((a, b) => a - b);
  const gaps = writes.slice(1).map((endMs, i) => endMs - writes[i]!);
  return {
    operations: history.length,
    acknowledgedWrites: writes.length,
    unknown: history.filter(({ outcome }) => outcome === 'unknown').length,
    lost: count(['lost-append']),
    duplicated: count(['duplicate']),
    stale: count(staleRules),
    violations: violations.map(({ rule, text }) => `${rule}: ${text}`),
    longestWriteGapMs: gaps.length > 0 ? Math.max(...gaps) : 0,
  };
}

/** For a person. */
export function verdictSentence({
  acknowledgedWrites,
  lost,
  duplicated,
  stale,
  violations,
  ...rest
}: DataVerdict): string {
  const others = violations.length - lost - duplicated - stale;
  return (
    `The checker's verdict on ${rest.operations} recorded answers: ${acknowledgedWrites} writes acknowledged, ${lost} lost, ` +
    `${duplicated} there twice, ${stale} stale reads${others > 0 ? `, ${others} other violations` : ''}; ` +
    `${rest.unknown} answers left the outcome open. The longest time without a write: ${(rest.longestWriteGapMs / 1000).toFixed(1)} s.`
  );
}

export interface CallersOptions {
  /** Where Envoy listens for the service. */
  url: string;
  callers: number;
  /** Longest pause of a caller between two requests. */
  pauseMs: number;
  sloMs: number;
  seed: number;
}

/** How long the last current reads may be asked for anew. */
const lastReadsWithinMs = 30_000;

export class RecordingCallers implements Load {
  private clients: Clients | undefined;
  private startedAtMs = 0;
  private ended: Promise<History> | undefined;

  constructor(private readonly options: CallersOptions) {}

  start(): void {
    const { url, callers, pauseMs, seed } = this.options;
    const { hostname, port } = new URL(url);
    const envoy = { name: 'envoy', address: hostname, port: Number(port) };
    this.startedAtMs = Date.now();
    this.clients = new Clients({ seed, clients: callers, pauseMs, cells: () => [envoy] });
  }

  async stop(): Promise<LoadReport> {
    const outcomes = (await this.end()).map(({ startMs, endMs, outcome }): Outcome => {
      const atMs = performance.timeOrigin + startMs;
      const failure = { ok: undefined, failed: 'surely not done', unknown: 'outcome unknown' }[outcome];
      return { intendedAtMs: atMs, doneAtMs: performance.timeOrigin + endMs, latencyMs: endMs - startMs, failure };
    });
    return reportOf(outcomes, this.options.sloMs, { startedAtMs: this.startedAtMs, stoppedAtMs: Date.now() });
  }

  /** Ends the callers, reads everything once more and judges the whole history. */
  async verdict(): Promise<DataVerdict> {
    return verdictOn(await this.end());
  }

  private end(): Promise<History> {
    if (!this.clients) return Promise.resolve([]);
    const { history } = this.clients;
    // Without its last reads a history proves nothing, and the checker says so.
    this.ended ??= this.clients.finish(lastReadsWithinMs).catch(() => history);
    return this.ended;
  }
}
