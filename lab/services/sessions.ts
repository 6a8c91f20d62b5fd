/**
 * The lab's service with state in memory: each request writes its session and reads some others. The sessions kept are
 * bounded by `knobs.items`; they fill up with traffic, which looks like a leak until it stops, unless `knobs.preloaded` is 1.
 */
import { knob, readInstanceConfig, runService, type InstanceConfig, type ServiceDefinition } from './harness';

interface Session {
  key: number;
  visits: number;
  seenAt: number;
  path: string[];
  basket: { item: number; price: number }[];
}

const readsPerRequest = 3;
/** Reads and writes are spread over this many times more keys than sessions are kept, so that old ones are evicted. */
const keysPerItem = 4;

export function sessionsService(config: InstanceConfig): ServiceDefinition {
  const most = knob(config, 'items', 2000);
  const basketSize = knob(config, 'basket', 6);
  // A Map keeps the order of insertion: its first key is the one used longest ago.
  const sessions = new Map<number, Session>();

  const made = (key: number): Session => ({
    key,
    visits: 0,
    seenAt: 0,
    path: [`/items/${key}`, `/baskets/${key % 97}`],
    basket: Array.from({ length: basketSize }, (_, i) => ({ item: (key * 31 + i) % 5003, price: (key % 89) + i / 7 })),
  });

  function visit(key: number): Session {
    const session = sessions.get(key) ?? made(key);
    sessions.delete(key);
    sessions.set(key, session);
    session.visits++;
    session.seenAt = Date.now();
    if (sessions.size > most) sessions.delete(sessions.keys().next().value!);
    return session;
  }

  if (knob(config, 'preloaded', 0) === 1) for (let key = 0; key < most; key++) sessions.set(key, made(key));

  return {
    async work(key, ctx) {
      // The load's keys choose the caller; a visit opens sessions of its own beside it.
      const session = visit(key % (most * keysPerItem));
      for (let i = 0; i < readsPerRequest; i++) visit(Math.floor(ctx.random() * most * keysPerItem));
      await ctx.hold(ctx.drawServiceMs());
      return { key, visits: session.visits, sessions: sessions.size };
    },
  };
}

if (require.main === module) {
  const config = readInstanceConfig();
  runService(config, sessionsService(config));
}
