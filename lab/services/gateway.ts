/**
 * The lab's service in front of another: each request calls the downstream over a pooled connection, with a timeout and
 * retries. Knobs: `pool` connections (16), `poolWaitMs` (1000), `timeoutMs` of an attempt (800), `retries` (1).
 */
import { AnswerError, BoundedPool, DependencyMeter, knob, readInstanceConfig, runService } from './harness';
import type { InstanceConfig, ServiceDefinition } from './harness';
import { get } from './http-get';

/** A probe that has no answer by then counts as this long: the round trip is at least that. */
const longestProbeMs = 2000;

export function gatewayService(config: InstanceConfig): ServiceDefinition {
  if (!config.dependency) throw new Error('gateway needs the address of its downstream as dependency');
  const pool = new BoundedPool(knob(config, 'pool', 16), knob(config, 'poolWaitMs', 1000));
  const getItem = get(config.dependency, knob(config, 'timeoutMs', 800));
  // Connections of its own: no request's answer stands before the probe's.
  const getHealth = get(config.dependency, longestProbeMs);
  const attempts = 1 + knob(config, 'retries', 1);
  const dependency = new DependencyMeter();
  let roundTripS: number | undefined;
  let probing = false;

  /**
   * A small answer that waits for nobody. The time to connect would say nothing: a proxy's
   * kernel accepts at once, however far the peer behind it is.
   */
  async function probe(): Promise<void> {
    if (probing) return;
    probing = true;
    const beganAt = performance.now();
    try {
      await getHealth('/healthz');
      roundTripS = (performance.now() - beganAt) / 1000;
    } catch {
      // A refused connection is quick, and tells nothing about the way there.
      const elapsedMs = performance.now() - beganAt;
      roundTripS = elapsedMs >= longestProbeMs ? elapsedMs / 1000 : undefined;
    } finally {
      probing = false;
    }
  }

  async function call(key: number): Promise<void> {
    const giveBack = await pool.acquire().catch((error: Error) => {
      throw new AnswerError(503, error.message);
    });
    try {
      await dependency.measure(() => getItem(`/item?key=${key}`));
    } catch (error) {
      throw new AnswerError(502, (error as Error).message);
    } finally {
      giveBack();
    }
  }

  return {
    async work(key, ctx) {
      await ctx.hold(ctx.drawServiceMs());
      for (let attempt = 1; ; attempt++) {
        try {
          await call(key);
          return { key, attempt };
        } catch (error) {
          const isOwnPool = error instanceof AnswerError && error.status === 503;
          if (attempt >= attempts || isOwnPool || ctx.gone()) throw error;
          dependency.retried();
        }
      }
    },
    metrics(elapsedS) {
      void probe();
      return {
        ...pool.step(),
        ...dependency.step(elapsedS),
        ...(roundTripS === undefined ? {} : { 'network.rtt_s': roundTripS }),
      };
    },
    faults: { 'pool-leak': (perSecond, release) => pool.leak(perSecond, release) },
  };
}

if (require.main === module) {
  const config = readInstanceConfig();
  runService(config, gatewayService(config));
}
