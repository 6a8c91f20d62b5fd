/** `npm run bench:cells`: what the Synthetic Cell Manager promises, measured part by part. `--only PART` runs one. */
import { loadavg } from 'node:os';
import { readFlags, numberFlag } from '../lab/arguments';
import { catchUpFigures } from './cells/catch-up';
import { consistencyFigures } from './cells/consistency';
import { idleFigures } from './cells/idle';
import { poolFigures } from './cells/pool';
import { startFigures } from './cells/start';
import { say, write, type Figure } from './figures';

export interface PartOptions {
  /** How many seeded runs, where a part has such. */
  seeds: number;
  firstSeed: number;
  /** Only this kind, where a part has several. */
  kind: string | undefined;
  /** How often each thing is measured, for parts that repeat; left out: as they know best. */
  repetitions: number | undefined;
}

/** A part answers its figures; it starts and stops what it needs itself. */
const parts: Readonly<Record<string, (options: PartOptions) => Promise<Figure[]>>> = {
  consistency: consistencyFigures,
  'catch-up': catchUpFigures,
  pool: poolFigures,
  start: startFigures,
  idle: idleFigures,
};

async function main(): Promise<void> {
  const flags = readFlags({
    only: 'string',
    seeds: 'string',
    'first-seed': 'string',
    kind: 'string',
    repetitions: 'string',
    json: 'string',
  });
  const { only } = flags;
  if (only !== undefined && !parts[only]) {
    process.stderr.write(`--only ${only}: there are ${Object.keys(parts).join(', ')}\n`);
    process.exit(2);
  }
  const options = {
    seeds: numberFlag('seeds', flags.seeds, 20),
    firstSeed: numberFlag('first-seed', flags['first-seed'], 1),
    kind: flags.kind,
    repetitions: flags.repetitions === undefined ? undefined : numberFlag('repetitions', flags.repetitions, 1),
  };
  const figures: Figure[] = [];
  for (const [name, part] of Object.entries(parts)) {
    if (only !== undefined && name !== only) continue;
    process.stdout.write(`${name}\n`);
    figures.push(...(await part(options)));
  }
  say(figures);
  // A busy machine makes every time longer.
  process.stdout.write(
    `load average: ${loadavg()
      .map((load) => load.toFixed(1))
      .join(', ')}\n`,
  );
  if (flags.json !== undefined) write(flags.json, figures);
  process.exitCode = figures.some(({ met }) => met === false) ? 1 : 0;
}

void main();
