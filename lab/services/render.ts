/** The lab's CPU-bound service: each request really uses `serviceMs` of CPU. Meant to run under a CPU quota, with one or two slots. */
import { readInstanceConfig, runService, type ServiceDefinition } from './harness';

export function renderService(): ServiceDefinition {
  return {
    async work(key, ctx) {
      await ctx.burn(ctx.drawServiceMs());
      return { key, page: `rendered ${key}` };
    },
  };
}

if (require.main === module) runService(readInstanceConfig(), renderService());
