/**
 * Whether a leak that follows another is called as early as the first: `npm run bench:second-leak`. Plays made-up and
 * recorded telemetry through the engine's scoring with the shipped model; no server is needed.
 */
import { settingsSchema } from '../blueprints/settings';
import { Model } from '../prediction/model';
import { foretell, type Foretold } from './second-leak/foretold';
import { lettingsGo, madeUp, recorded, type LeakStory } from './second-leak/stories';

const gapsS = [0, 5, 10, 20, 60];

function stories(): LeakStory[] {
  const about = { quietS: 60, firstLeakS: 22, gapS: 0, how: 'collected at once' } as const;
  return [
    madeUp({ ...about, firstLeakS: 0 }),
    ...lettingsGo.flatMap((how) => gapsS.map((gapS) => madeUp({ ...about, how, gapS }))),
    ...recorded(),
  ];
}

const seconds = (value: number | null): string => (value === null ? 'never' : `${value.toFixed(1)} s`);

function row(name: string, which: string, { prepareS, shiftS, heapShare, leftS }: Foretold): string {
  const share = heapShare === null ? '–' : `${Math.round(100 * heapShare)} %`;
  const left = leftS === null ? '–' : `${leftS.toFixed(0)} s`;
  return `| ${name} | ${which} | ${seconds(prepareS)} | ${share} | ${left} | ${seconds(shiftS)} |`;
}

async function main(): Promise<void> {
  const model = await Model.load(settingsSchema.shape.scoring.parse({}).modelManifest);
  try {
    const lines = ['| | leak | called after | heap | left to the limit | traffic may move after |'];
    lines.push('| --- | --- | --- | --- | --- | --- |');
    for (const story of stories()) {
      const found = await foretell(model, story);
      found.forEach((foretold, i) => lines.push(row(story.name, i === 0 ? 'first' : 'second', foretold)));
    }
    process.stdout.write(`model ${model.id}\n\n${lines.join('\n')}\n`);
  } finally {
    await model.release();
  }
}

main().catch((error: unknown) => {
  process.stderr.write(`bench:second-leak: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
