/** The callers of the benchmark on a real Envoy: open-loop load in a process of its own, its path changed on demand. */
import { OpenLoopLoad, type LoadReport } from '../lab/load';

/** Take this path from now on; answered once every request before has ended. Or stop, and report. */
export type LoadOrder = { path: string } | 'stop';
export type LoadAnswer = 'switched' | LoadReport;

function main(): void {
  const [url, rate] = process.argv.slice(2) as [string, string];
  const load = new OpenLoopLoad({
    urls: url,
    ratePerSecond: Number(rate),
    arrivals: 'poisson',
    paths: ['/'],
    sloMs: 250,
    timeoutMs: 20_000,
    seed: 1,
  });
  const obey = async (order: LoadOrder): Promise<LoadAnswer> => {
    if (order === 'stop') return load.stop();
    load.setPaths([order.path]);
    await load.caughtUp();
    return 'switched';
  };
  process.on('message', (order: LoadOrder) => void obey(order).then((answer) => process.send!(answer)));
  process.on('disconnect', () => process.exit());
  load.start();
}

if (require.main === module) main();
