/**
 * Says every change and every publication twice: as one JSON log line at once, and as a row of the append-only table.
 * While Postgres is away rows wait in order; should too many wait, the oldest are left to the log alone, and counted.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { AuditRecord } from '../../blueprints/audit';

export interface AuditLogOptions {
  log: Logger;
  /** Adds a row; rejects while it cannot. Left out, the log alone is written. */
  write?: ((record: AuditRecord) => Promise<void>) | undefined;
  /** A record could not be kept as a row. */
  onUnwritten?: () => void;
  /** Records that may wait. Default 10,000. */
  waitingAtMost?: number;
}

export class AuditLog {
  private readonly waiting: AuditRecord[] = [];
  private writing: Promise<void> | undefined;
  private isClosed = false;

  constructor(private readonly options: AuditLogOptions) {}

  record(record: AuditRecord): void {
    const { log, write, onUnwritten, waitingAtMost = 10_000 } = this.options;
    log.info({ audit: record }, `audit: ${sentence(record)}`);
    if (!write) return;
    this.waiting.push(record);
    if (this.waiting.length > waitingAtMost) {
      this.waiting.shift();
      onUnwritten?.();
    }
    this.writing ??= this.writeAll(write).finally(() => (this.writing = undefined));
  }

  /** Gives what waits one more chance; does not wait for a store that is away. */
  async close(withinMs = 1000): Promise<void> {
    if (this.writing) await Promise.race([this.writing, sleep(withinMs, undefined, { ref: false })]);
    this.isClosed = true;
  }

  private async writeAll(write: (record: AuditRecord) => Promise<void>): Promise<void> {
    for (let pauseMs = 100; this.waiting.length > 0 && !this.isClosed;) {
      const [next] = this.waiting as [AuditRecord];
      try {
        await write(next);
        pauseMs = 100;
        if (this.waiting[0] === next) this.waiting.shift();
      } catch (error) {
        if (pauseMs === 100) this.options.log.warn(`audit records wait for the store: ${(error as Error).message}`);
        await sleep(pauseMs, undefined, { ref: false });
        pauseMs = Math.min(2 * pauseMs, 5000);
      }
    }
  }
}

function sentence({ kind, service, epoch, by, identity, reason, outcome, details }: AuditRecord): string {
  const who = [by, identity && `as ${identity}`].filter(Boolean).join(' ');
  const method = details?.method;
  const what = kind === 'request' && typeof method === 'string' ? method : kind;
  return [
    `${what} of ${service ?? 'all services'}`,
    ...(epoch ? [`epoch ${epoch}`] : []),
    ...(who ? [`by ${who}`] : []),
    ...(reason ? [`because ${reason}`] : []),
    ...(outcome ? [outcome] : []),
  ].join(', ');
}
