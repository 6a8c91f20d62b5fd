/** Acknowledged writes over many seeded handovers there and back, each with something breaking in its middle. */
import { changelogWorld } from '../../lab/stateful/changelog-world';
import { faultedRun, planOf, type FaultedRun, type RunOptions } from '../../lab/stateful/faulted-handover';
import { postgresWorld } from '../../lab/stateful/postgres-world';
import { startStack, type Stack, type StackPart } from '../../local/stack';
import { atMost, plain, quantile, type Figure } from '../figures';
import type { PartOptions } from '../cells';

type World = Pick<RunOptions, 'sync' | 'source' | 'synthetic'> & { stop(): Promise<void> };

interface Kind {
  parts: StackPart[];
  make: (stack: Stack, name: string, seed: number) => Promise<World>;
}

const kinds: Readonly<Record<string, Kind>> = {
  'kafka-changelog': { parts: ['kafka'], make: changelogWorld },
  postgres: { parts: [], make: postgresWorld },
};

export async function consistencyFigures({ seeds, firstSeed, kind: only }: PartOptions): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const [kind, { parts, make }] of Object.entries(kinds)) {
    if (only !== undefined && kind !== only) continue;
    const stack = await startStack({ parts });
    const runs: FaultedRun[] = [];
    const unfinished: string[] = [];
    try {
      for (let seed = firstSeed; seed < firstSeed + seeds; seed++) {
        const told: string[] = [];
        const world = await make(stack, `run-${seed}`, seed);
        try {
          const run = await faultedRun({ seed, ...world, withinMs: 120_000, say: (sentence) => told.push(sentence) });
          runs.push(run);
          tell(kind, run);
          if (run.violations.length > 0) process.stdout.write(`    ${told.join('\n    ')}\n`);
        } catch (error) {
          unfinished.push((error as Error).message);
          process.stdout.write(`  ${kind} ${words(seed)}: ${(error as Error).message}\n    ${told.join('\n    ')}\n`);
        } finally {
          await world.stop();
        }
      }
    } finally {
      await stack.stop();
    }
    figures.push(...figuresOf(kind, runs, unfinished.length));
  }
  return figures;
}

function figuresOf(kind: string, runs: readonly FaultedRun[], unfinished: number): Figure[] {
  const violations = runs.flatMap((run) => run.violations);
  const of = (rules: readonly string[]) => violations.filter(({ rule }) => rules.includes(rule)).length;
  const faults = runs.flatMap(({ plan }) => plan).filter(({ fault }) => fault !== 'none').length;
  const pausesMs = runs.flatMap(({ handovers }) => handovers).map(({ writePauseMs }) => writePauseMs);
  return [
    plain(`${kind}: seeded runs`, runs.length + unfinished, 'runs'),
    plain(`${kind}: faults in the middle of a handover`, faults, 'faults'),
    plain(
      `${kind}: writes acknowledged`,
      runs.reduce((sum, { acknowledged }) => sum + acknowledged, 0),
      'writes',
    ),
    atMost(`${kind}: acknowledged writes lost`, of(['lost-append']), 'writes', 0),
    atMost(`${kind}: stale or backward reads`, of(['stale-list', 'stale-register', 'register-went-back']), 'reads', 0),
    atMost(`${kind}: other broken promises`, of(['duplicate', 'phantom', 'order-changed', 'wrong-value']), 'cases', 0),
    atMost(`${kind}: runs that came to no end`, unfinished + of(['nothing-checked']), 'runs', 0),
    plain(`${kind}: writes wait in a handover, p50`, quantile(pausesMs, 0.5), 'ms'),
    plain(`${kind}: writes wait in a handover, largest`, Math.max(...pausesMs), 'ms'),
  ];
}

function words(seed: number): string {
  const [there, back] = planOf(seed).map(({ fault, victim, moment }) => `${fault} of the ${victim} in ${moment}`);
  return `seed ${seed} (${there}; ${back})`;
}

function tell(kind: string, { seed, acknowledged, unknown, operations, attempts, violations }: FaultedRun): void {
  const judged = violations.length === 0 ? 'every promise kept' : violations.map(({ text }) => text).join('; ');
  process.stdout.write(
    `  ${kind} ${words(seed)}: ${acknowledged} writes acknowledged, ${unknown} of ${operations} unanswered, ${attempts} attempts: ${judged}\n`,
  );
}
