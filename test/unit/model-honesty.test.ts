/** What would give away that the model knows what it cannot know: asked of the shipped model on telemetry kept from it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { figuresOf, leakAlarm } from '../../models/evaluation/detector-figures';
import { defaultRules } from '../../models/evaluation/events';
import { scoreCells } from '../../models/evaluation/model-detector';
import { recordedCells } from '../../models/evaluation/recorded-cells';
import { splitSchema } from '../../models/evaluation/split';
import { alertingOf } from '../../models/evaluation/run';
import { trainingData } from '../../models/training/train';
import { packageRoot } from '../../package-root';
import { Model } from '../../prediction/model';

const models = join(packageRoot, 'models');
const read = (file: string): unknown => JSON.parse(readFileSync(join(models, file), 'utf8'));

describe('The shipped model is honest', () => {
  const manifest = read('manifest.json') as {
    shuffledLabels: { prAuc: number; baseRate: number };
    dataSha256: string;
    horizonsSteps: number[];
  };

  it('says nothing of crashes that nothing announces, on services and episodes kept out of training', async function () {
    this.timeout(180_000);
    const model = await Model.load(join(models, 'manifest.json'));
    try {
      const { heldOut } = await recordedCells(trainingData(), splitSchema.parse(model.manifest.split));
      const alerting = alertingOf(model.manifest);
      const scored = await scoreCells(heldOut, { model, ...alerting });
      const scores = heldOut.map(({ cell }) => scored.get(cell)?.probability ?? new Float32Array(0));
      const rules = { ...defaultRules, horizonTicks: manifest.horizonsSteps.at(-1) as number };
      const figures = figuresOf(model.id, heldOut, scores, { rules, alerting, isProbability: true });
      const leak = leakAlarm(heldOut, scores, figures, rules);
      expect(leak.crashes, 'crashes without warning').to.be.at.least(5);
      expect(leak.inAlarm).to.be.at.most(leak.atMost);
      expect(leak.meanBefore).to.be.at.most(2 * leak.meanHealthy);
    } finally {
      await model.release();
    }
  });

  it('learnt nothing from shuffled labels', () => {
    const { prAuc, baseRate } = manifest.shuffledLabels;
    expect(prAuc).to.be.at.most(2 * baseRate);
  });

  it('rests on no single group of metrics', () => {
    interface Ablation {
      name: string;
      prAuc: number;
      elsewhere: { caught: number; caughtWithAll: number };
    }
    const { ablations, detector } = read('evaluation.json') as { ablations: Ablation[]; detector: { prAuc: number } };
    const groups = ablations.filter(({ name }) => name.startsWith('without '));
    expect(groups.length).to.be.at.least(6);
    for (const { name, prAuc, elsewhere } of groups) {
      // A leak cannot be seen without memory; everything else must be.
      expect(elsewhere.caught, name).to.be.at.least(0.5 * elsewhere.caughtWithAll);
      expect(prAuc, name).to.be.at.least(0.5 * detector.prAuc);
    }
  });
});
