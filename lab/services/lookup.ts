/**
 * The lab's cache in front of a slow store: a hit costs `serviceMs`, a miss costs a connection of a bounded pool and a
 * request to the store besides. Knobs: `cacheItems`, `keys` (size of the key space), `pool`, `timeoutMs`, `poolTimeoutMs`,
 * `preloaded` (1: starts with the lowest keys cached, which a zipf-like load asks for most).
 */
import { AnswerError, BoundedPool, DependencyMeter, knob, readInstanceConfig, runService } from './harness';
import type { InstanceConfig, ServiceDefinition } from './harness';
import { get } from './http-get';

export function lookupService(config: InstanceConfig): ServiceDefinition {
  const { dependency } = config;
  if (!dependency) throw new Error('The service lookup needs the dependency: the host and port of its store.');
  const most = knob(config, 'cacheItems', 1000);
  const keys = knob(config, 'keys', 5000);
  const timeoutMs = knob(config, 'timeoutMs', 2000);
  const pool = new BoundedPool(knob(config, 'pool', 8), knob(config, 'poolTimeoutMs', 1000));
  const store = new DependencyMeter();
  const fetchItem = get(dependency, timeoutMs);
  // Oldest use first, as a Map keeps the order of insertion.
  const cache = new Map<number, string>();
  const notKept = new Set<number>();
  let hits = 0;
  let reads = 0;

  function keep(key: number, value: string): void {
    if (notKept.has(key)) return;
    cache.set(key, value);
    if (cache.size > most) cache.delete(cache.keys().next().value!);
  }

  function flush(share: number, random: () => number): void {
    notKept.clear();
    if (share <= 0) return;
    // Over the whole key space, so that the share of the hits that is lost is the share ordered, and stays it.
    for (let key = 0; key < keys; key++) {
      if (random() < share) {
        notKept.add(key);
        cache.delete(key);
      }
    }
  }

  if (knob(config, 'preloaded', 0) === 1) for (let key = most - 1; key >= 0; key--) cache.set(key, `item ${key}`);

  return {
    async work(rawKey, ctx) {
      const key = rawKey % keys;
      reads++;
      await ctx.hold(ctx.drawServiceMs());
      const known = cache.get(key);
      if (known !== undefined) {
        hits++;
        cache.delete(key);
        cache.set(key, known);
        return { key, value: known };
      }
      try {
        const value = await pool.with(() => store.measure(() => fetchItem(`/item?key=${key}`)));
        keep(key, value);
        return { key, value };
      } catch (error) {
        throw new AnswerError(503, `The store did not give item ${key}: ${(error as Error).message}`);
      }
    },
    metrics(elapsedS) {
      const hitRatio = reads > 0 ? { 'cache.hit_ratio': hits / reads } : {};
      hits = reads = 0;
      return { ...hitRatio, ...store.step(elapsedS), ...pool.step() };
    },
    faults: {
      'cache-flush': (share) => flush(share, Math.random),
      'pool-leak': (perSecond, release) => pool.leak(perSecond, release),
    },
  };
}

if (require.main === module) {
  const config = readInstanceConfig();
  runService(config, lookupService(config));
}
