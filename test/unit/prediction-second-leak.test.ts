/** A resource that was at risk and has been let go begins a trend of its own: the next leak is called as early as the first. */
import { expect } from 'chai';
import { settingsSchema } from '../../blueprints/settings';
import { foretell, type Foretold } from '../../bench/second-leak/foretold';
import { lettingsGo, madeUp, recorded, type Plan } from '../../bench/second-leak/stories';
import type { Sample } from '../../prediction/contracts';
import { featureNames, featureSpec, FeatureExtractor } from '../../prediction/features';
import { Model } from '../../prediction/model';
import { WordReader, WordWriter } from '../../prediction/words';

const t0 = 1_795_328_800_000;
const limit = 64e6;
const cell = 'a';

/** A heap in megabytes per second of each instance; nothing is sent where it is NaN. */
type Heap = (second: number) => Record<string, number>;

function samplesOf(heap: Heap, s: number): Sample[] {
  return Object.entries(heap(s)).flatMap(([instance, megabytes]) => {
    const sample = { cell, instance, atMs: t0 + 1000 * s };
    const fds: Sample = { ...sample, metric: 'fd.used', value: 20 };
    if (Number.isNaN(megabytes)) return [fds];
    return [
      fds,
      { ...sample, metric: 'heap.used_bytes', value: 1e6 * megabytes },
      { ...sample, metric: 'heap.limit_bytes', value: limit },
    ];
  });
}

type Row = (feature: string) => number;

/** The rows of every second, by one extractor or by several that take over from each other's saved windows. */
function rowsOf(heap: Heap, seconds: number, isAtRisk: (s: number) => boolean, savedAt?: number): Row[] {
  let extractor = new FeatureExtractor(featureSpec);
  return Array.from({ length: seconds }, (_, s) => {
    for (const sample of samplesOf(heap, s)) extractor.observe(sample);
    const row = new Float32Array(featureNames.length);
    extractor.tick([cell], t0 + 1000 * s, row);
    extractor.freezeBaseline(cell, isAtRisk(s));
    if (s === savedAt) {
      const words = new WordWriter();
      extractor.window(cell).save(words);
      extractor = new FeatureExtractor(featureSpec);
      extractor.window(cell).restore(new WordReader(words.take()));
    }
    return (feature) => row[featureNames.indexOf(`heap.used_bytes:${feature}`)] ?? NaN;
  });
}

const [quietS, letGoS] = [60, 90] as const;
/** Rest, a leak of a megabyte a second, and rest again. */
const leakAndFall = (s: number): number => 10 + (s >= quietS && s < letGoS ? s - quietS : 0);
const atRisk = (s: number): boolean => s >= quietS + 10 && s < letGoS;
const never = (): boolean => false;

describe('The trend of a resource that has been let go', () => {
  it('begins anew with the first values after the fall', () => {
    const heap: Heap = (s) => ({ 'a-1': s < letGoS + 5 ? leakAndFall(s) : 10 + (s - letGoS - 5) });
    const rows = rowsOf(heap, letGoS + 20, atRisk);
    expect(rows[letGoS - 1]?.('slope-mid')).to.be.greaterThan(0.01);
    expect(rows[letGoS + 3]?.('slope-mid'), 'too few values yet').to.be.NaN;
    const soon = rows[letGoS + 14];
    expect(soon?.('slope-mid')).to.be.greaterThan(0.005);
    expect(soon?.('r2-mid')).to.be.greaterThan(0.8);
    expect(Math.expm1(soon?.('log-steps-to-limit') ?? NaN)).to.be.below(120);
  });

  it('goes on where nothing was at risk: the model meets what it was trained on', () => {
    const rows = rowsOf((s) => ({ 'a-1': leakAndFall(s) }), letGoS + 20, never);
    for (const row of rows.slice(letGoS)) expect(row('slope-mid')).to.not.be.NaN;
    expect(rows[letGoS + 10]?.('slope-mid')).to.be.below(0);
  });

  it('goes on through collections amid a leak, however deep, as long as they leave what has leaked', () => {
    // Half of what is above the base is garbage when it is collected, every 12 s.
    const heap: Heap = (s) => {
      const leaked = Math.max(0, s - quietS) * 0.4;
      return { 'a-1': 10 + leaked + ((s % 12) / 12) * Math.max(2, leaked) };
    };
    const names = ['slope-mid', 'slope-long', 'floor-slope-mid', 'floor-slope-long', 'log-steps-to-limit'];
    const trends = (isAtRisk: (s: number) => boolean) =>
      rowsOf(heap, 130, isAtRisk).map((row) => names.map((name) => row(name)));
    expect(trends((s) => s >= quietS + 20)).to.deep.equal(trends(never));
  });

  it('goes on through a saw-tooth that a cell too young for a baseline is thought to be at risk for, after the first', () => {
    // From 26 to 42 of 64 MB and back every 12 s: a quarter of the way to the limit.
    const heap: Heap = (s) => ({ 'a-1': 26 + ((s % 12) / 12) * 17 });
    const rows = rowsOf(heap, 60, (s) => s >= 6);
    const cut = rows.flatMap((row, s) => (s >= 12 && Number.isNaN(row('slope-mid')) ? [s] : []));
    expect(Math.max(...cut)).to.be.below(24);
  });

  it('goes on while the fullest instance is only silent, its process or its own telemetry', () => {
    for (const missing of [{}, { 'a-1': NaN }]) {
      const heap: Heap = (s) => ({ ...(s < letGoS ? { 'a-1': leakAndFall(s) } : missing), 'a-2': 10 });
      const rows = rowsOf(heap, letGoS + 20, atRisk);
      for (const row of rows.slice(letGoS)) expect(row('slope-long')).to.not.be.NaN;
    }
  });

  it('goes on after a fall of two steps', () => {
    const heap: Heap = (s) => ({ 'a-1': s === 85 || s === 86 ? 10 : leakAndFall(s) });
    for (const row of rowsOf(heap, letGoS, atRisk).slice(85)) expect(row('slope-long')).to.not.be.NaN;
  });

  it('is found also if it is collected long after the risk was over, but not once the windows hold nothing of it', () => {
    const collectedAfter = (later: number): Heap => {
      const fallS = letGoS + later;
      return (s) => ({ 'a-1': s < letGoS ? leakAndFall(s) : s < fallS ? 40 : 10 });
    };
    const slopeAfterFall = (later: number): number =>
      rowsOf(collectedAfter(later), letGoS + later + 6, atRisk).pop()?.('slope-mid') ?? 0;
    expect(slopeAfterFall(60)).to.be.NaN;
    expect(slopeAfterFall(130)).to.be.below(0);
  });

  it('is not told as missing values', () => {
    const index = featureNames.indexOf('cell:missing');
    const extractor = new FeatureExtractor(featureSpec);
    const row = new Float32Array(featureNames.length);
    for (let s = 0; s < letGoS + 20; s++) {
      for (const sample of samplesOf((second) => ({ 'a-1': leakAndFall(second) }), s)) extractor.observe(sample);
      extractor.tick([cell], t0 + 1000 * s, row);
      extractor.freezeBaseline(cell, atRisk(s));
      if (s > 30) expect(row[index], `second ${s}`).to.equal(0);
    }
  });

  it('is the same to the bit for a worker that took over at any time', () => {
    const heap: Heap = (s) => ({ 'a-1': s < letGoS + 5 ? leakAndFall(s) : 10 + 0.8 * (s - letGoS - 5) });
    const bits = (savedAt?: number) =>
      rowsOf(heap, letGoS + 30, atRisk, savedAt).map((row) =>
        featureNames.filter((n) => n.startsWith('heap.')).map((name) => row(name.slice('heap.used_bytes:'.length))),
      );
    const never = bits();
    for (let savedAt = quietS; savedAt < letGoS + 12; savedAt++) {
      expect(bits(savedAt), `saved at second ${savedAt}`).to.deep.equal(never);
    }
  });
});

describe('A second leak', () => {
  let model: Model;
  before(async () => (model = await Model.load(settingsSchema.shape.scoring.parse({}).modelManifest)));
  after(() => model.release());

  const plan: Plan = { quietS: 60, firstLeakS: 22, gapS: 0, how: 'collected at once' };
  const call = async (of: Plan): Promise<Foretold> => (await foretell(model, madeUp(of))).at(-1) as Foretold;

  for (const how of lettingsGo) {
    it(`is called as early as one that nothing came before (${how})`, async () => {
      const alone = await call({ ...plan, firstLeakS: 0 });
      expect(alone.prepareS).to.be.below(25);
      for (const gapS of [0, 5, 10, 20, 60]) {
        const second = await call({ ...plan, how, gapS });
        expect(second.prepareS, `${gapS} s between`).to.be.at.most((alone.prepareS ?? NaN) + 3);
      }
    });
  }

  it('is called in good time in what was recorded from real processes', async () => {
    for (const story of recorded()) {
      const [first, second] = await foretell(model, story);
      expect(second?.prepareS, story.name).to.be.at.most((first?.prepareS ?? NaN) + 5);
      expect(second?.leftS, story.name).to.be.at.least(25);
    }
  });

  it('is called no later where deep collections come amid it', async () => {
    const garbage = { bytes: 10e6, everyS: 8 };
    const alone = await call({ ...plan, firstLeakS: 0, garbage });
    const second = await call({ ...plan, gapS: 20, garbage });
    expect(second.prepareS).to.be.at.most((alone.prepareS ?? NaN) + 3);
  });
});
