/**
 * Keeps an idle Kafka client idle. kafkajs 2.2.4 asks a thousand times a second, per connection, whether requests wait to
 * be sent: its delay comes out negative when nothing waits. That is 4 % of a core per instance of the lab.
 */
import { createRequire } from 'node:module';

interface RequestQueue {
  pending: unknown[];
  /** Milliseconds since the epoch; negative if the broker has not asked to wait. */
  throttledUntil: number;
  scheduleCheckPendingRequests(): void;
}

/** For this process; needed once, before the first client is made. */
export function keepIdleClientsIdle(): void {
  const { prototype } = createRequire(__filename)('kafkajs/src/network/requestQueue') as { prototype: RequestQueue };
  const schedule = Object.getOwnPropertyDescriptor(prototype, 'scheduleCheckPendingRequests')?.value as
    ((this: RequestQueue) => void) | undefined;
  if (!schedule) throw new Error('kafkajs has changed: check whether its idle clients still need this.');
  prototype.scheduleCheckPendingRequests = function () {
    // A request that comes later asks again itself.
    if (this.pending.length > 0 || this.throttledUntil > Date.now()) schedule.call(this);
  };
}
