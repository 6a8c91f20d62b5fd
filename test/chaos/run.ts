/** `npm run test:chaos`: the whole reliability matrix on real servers, with progress and a closing table. `--only PATTERN`, `--seed N`, `--parallel N`, `--list`. */
import { parseArgs } from 'node:util';
import { quietRuntime } from '../support/failover-bench';
import { replayHistoriesOf } from '../support/replay-histories';
import { Bench } from './bench';
import { everyRow, runRow, type Row, type Verdict } from './matrix';
import { sideBySide } from './side-by-side';

const say = (line: string): void => void process.stdout.write(`${line}\n`);

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      seed: { type: 'string' },
      parallel: { type: 'string', default: '6' },
      list: { type: 'boolean', default: false },
    },
  });
  const rows = everyRow().filter(
    ({ title, group }) => !values.only || new RegExp(values.only, 'i').test(`${group}: ${title}`),
  );
  if (values.list) return rows.forEach(({ group, title }) => say(`${group}: ${title}`));
  quietRuntime();
  const beganMs = Date.now();
  const verdicts = new Map<Row, Verdict>();
  const bench = await Bench.open();
  try {
    await sideBySide(rows, Number(values.parallel), async (row) => {
      const verdict = await runRow(bench, row);
      verdicts.set(row, verdict);
      const mark = verdict.broken.length === 0 ? '✓' : '✗';
      say(`${mark} ${verdicts.size}/${rows.length} ${row.title}: ${verdict.outcome} (${verdict.seconds.toFixed(1)} s)`);
      for (const words of verdict.broken) say(`    ${words}`);
    });
    say(`${await replayHistoriesOf(bench.client)} histories replay`);
  } finally {
    await bench.close();
  }
  say(`${rows.length} rows in ${((Date.now() - beganMs) / 1000).toFixed(0)} s`);
  process.exitCode = [...verdicts.values()].some(({ broken }) => broken.length > 0) ? 1 : 0;
}

main().catch((error: unknown) => {
  say(String((error as Error).stack));
  process.exitCode = 1;
});
