/**
 * How fast and how small scoring is, with the shipped model and a real Kafka. `npm run bench:scoring [-- --json FILE]`;
 * `--only ticks|engine|restart` for a part of it, `--cells N` for other than 10,000 cells.
 */
import { parseArgs } from 'node:util';
import { loadavg } from 'node:os';
import { settingsSchema } from '../blueprints/settings';
import { startStack } from '../local/stack';
import { Model } from '../prediction/model';
import { benchEngine } from './engine';
import { say, write, type Figure } from './figures';
import { benchExplanation, benchOneCell, benchTenThousand } from './ticks';

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { json: { type: 'string' }, only: { type: 'string' }, cells: { type: 'string', default: '10000' } },
  });
  const model = await Model.load(settingsSchema.shape.scoring.parse({}).modelManifest);
  const figures: Figure[] = [];
  const add = (more: Figure[]) => {
    say(more);
    figures.push(...more);
  };
  const busy = loadavg()[0] ?? 0;
  process.stdout.write(
    `model ${model.id}; load average ${busy.toFixed(1)}: what others do on this machine slows this\n`,
  );
  if (values.only === undefined || values.only === 'ticks') {
    add(await benchTenThousand(model, Number(values.cells)));
    add(await benchOneCell(model));
    add(await benchExplanation(model));
  }
  if (values.only !== 'ticks') {
    const stack = await startStack({ parts: ['kafka'] });
    try {
      await benchEngine(stack, model, values.only, add);
    } finally {
      await stack.stop();
    }
  }
  await model.release();
  if (values.json !== undefined) write(values.json, figures);
  if (figures.some(({ met }) => met === false)) process.exitCode = 1;
}

main().catch((error: unknown) => {
  process.stderr.write(`bench:scoring: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
