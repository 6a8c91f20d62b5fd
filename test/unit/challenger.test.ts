/** The sequence model's data and its comparison with the shipped one. */
import { expect } from 'chai';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CellSeries, IncidentSpan } from '../../models/evaluation/contracts';
import { judgeScores, verdictOn, type ChallengerComparison, type Judged } from '../../models/evaluation/challenger';
import { challengerSection } from '../../models/evaluation/challenger-section';
import { readScoredRows, type ScoredRows } from '../../models/evaluation/cross-validation';
import { defaultRules } from '../../models/evaluation/events';
import { channelNames, sequenceRows } from '../../models/training/export-sequences';
import { labelOf } from '../../models/training/labels';
import { labelledRows } from '../../models/training/labelled-rows';
import type { RecordedGroup } from '../../models/training/recorded';
import { RowFiles } from '../../models/training/row-files';
import { packageRoot } from '../../package-root';
import type { Sample } from '../../prediction/contracts';
import type { MetricName } from '../../prediction/metrics';

const stepMs = 1000;
const steps = 150;
const incident: IncidentSpan = {
  cell: 'a',
  fault: 'memory-leak',
  faultStartMs: 60_000,
  onsetMs: 120_500,
  recoveredMs: Infinity,
  predictable: true,
};

/** Heap rises from step 60 on; without a limit of memory, whose share nobody can know. */
function samplesOf(cell: string): Sample[] {
  const values = (step: number): [MetricName, number][] => [
    ['heap.used_bytes', 20e6 + (cell === 'a' ? Math.max(0, step - 60) * 1e6 : 0)],
    ['heap.limit_bytes', 100e6],
    ['memory.used_bytes', 80e6],
    ['http.latency_p99_s', 0.05 + 0.001 * (step % 7)],
  ];
  return Array.from({ length: steps }, (_, step) =>
    values(step).map(([metric, value]) => ({ cell, instance: `${cell}-1`, atMs: step * stepMs, metric, value })),
  ).flat();
}

function groupOf(change: (samples: Sample[]) => Sample[] = (samples) => samples): RecordedGroup {
  return {
    source: 'made',
    number: 1,
    service: 'made',
    stepMs,
    faults: ['memory-leak'],
    cells: ['a', 'b'].map((cell) => ({
      cell,
      facts: { sloLatencyMs: 200, cohort: 'made' },
      samples: change(samplesOf(cell)),
      incidents: cell === 'a' ? [incident] : [],
      fromMs: 5 * stepMs,
      toMs: (steps - 1) * stepMs,
    })),
  };
}

const channel = (name: string): number => {
  const at = channelNames.indexOf(name);
  if (at < 0) throw new Error(`no channel ${name}`);
  return at;
};

describe('sequences for the challenger', () => {
  it('know nothing of what comes later', () => {
    const cut = 80 * stepMs;
    const whole = [...sequenceRows(groupOf())].filter(({ step }) => step + 5 <= 80);
    const early = [...sequenceRows(groupOf((samples) => samples.filter(({ atMs }) => atMs <= cut)))];
    expect(early.length).to.be.greaterThan(100);
    expect(whole.map(({ features }) => features)).to.deep.equal(early.map(({ features }) => features));
  });

  it('are the rows that the champion is trained on, in their order and with their labels', () => {
    const named = (rows: Iterable<{ place: number; step: number; stepsToFailure: number; stepsWatched: number }>) =>
      [...rows].map(({ place, step, stepsToFailure, stepsWatched }) => [place, step, stepsToFailure, stepsWatched]);
    const rows = named(sequenceRows(groupOf()));
    expect(rows).to.deep.equal(named(labelledRows(groupOf())));
    expect(rows).to.have.length(2 * (steps - 5));
    for (const [place, step, stepsToFailure, stepsWatched] of rows as [number, number, number, number][]) {
      const atMs = (step + 5) * stepMs;
      expect({ stepsToFailure, stepsWatched }).to.deep.equal(
        labelOf(atMs, place === 0 ? [incident] : [], (steps - 1) * stepMs, stepMs),
      );
    }
  });

  it('say the share of a known limit, and leave missing what is missing', () => {
    const outage = (atMs: number): boolean => atMs > 100_000 && atMs <= 110_000;
    const rows = [
      ...sequenceRows(
        groupOf((all) => all.filter(({ metric, atMs }) => metric !== 'heap.used_bytes' || !outage(atMs))),
      ),
    ].filter(({ place }) => place === 0);
    const share = (step: number) => rows[step - 5]?.features[channel('heap.used_bytes:share')];
    expect(share(90)).to.be.closeTo(0.5, 1e-6);
    expect(share(108)).to.be.NaN;
    expect(share(112)).to.be.closeTo(0.72, 1e-6);
    for (const { features } of rows) {
      expect(features[channel('memory.used_bytes:share')]).to.be.NaN;
      expect(features[channel('cpu.utilization:share')]).to.be.NaN;
      expect(features[channel('queue.depth:log-ratio')]).to.be.NaN;
    }
    expect(rows[140]?.features[channel('memory.used_bytes:log-ratio')]).to.be.closeTo(0, 1e-6);
    expect(rows[140]?.features[channel('cell:p99-per-slo')]).to.be.within(0.2, 0.3);
  });

  it('lie in files that evaluation puts back on the ticks of their cells', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'sequences-'));
    try {
      const files = new RowFiles(dir);
      const { index, firstCell } = files.begin(groupOf(), { heldOut: false });
      const expected: [number, number][] = [];
      const scores: number[] = [];
      for (const { place, step, features, stepsToFailure, stepsWatched } of sequenceRows(groupOf())) {
        await files.append(features, [index, firstCell + place, 0, step, stepsToFailure, stepsWatched]);
        expected.push([place, step]);
        scores.push(place + step / 1000, NaN, NaN);
      }
      await files.close({});
      writeFileSync(join(dir, 'scores.f32'), Buffer.from(Float32Array.from(scores).buffer));
      const read = readScoredRows(dir, 1);
      expect(read.cells.map(({ cell }) => cell)).to.deep.equal(['a', 'b']);
      for (const [place, step] of expected) {
        expect(read.scores['out-of-fold'][place]?.[step]).to.be.closeTo(place + step / 1000, 1e-6);
      }
      expect(readFileSync(join(dir, 'features.f32'))).to.have.length(4 * channelNames.length * expected.length);
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });
});

describe('the comparison of challenger and champion', () => {
  const split = { heldOutServices: ['unseen'], heldOutEvery: 1000, heldOutRemainder: 999 };
  const rules = { ...defaultRules, horizonTicks: 50 };

  /** Twenty cells of each service fail at tick 400 of 500; a model that knows some of them says so 20 ticks ahead. */
  function scoredBy(knows: (service: string, cell: number) => boolean): Judged {
    const services = ['seen', 'unseen'];
    const cells: CellSeries[] = [];
    const scores: Float32Array[] = [];
    for (const service of services) {
      for (let i = 0; i < 20; i++) {
        const onsetMs = 400 * stepMs;
        const failing: IncidentSpan = { ...incident, cell: `${service}-${i}`, faultStartMs: 340_000, onsetMs };
        cells.push({
          ...{ cell: `${service}-${i}`, service, stepMs, startMs: 0, ticks: 500, values: new Map() },
          ...{ sloLatencyS: NaN, incidents: [failing] },
        });
        const row = new Float32Array(500).fill(0.01);
        if (knows(service, i)) row.fill(0.9, 380, 400);
        scores.push(row);
      }
    }
    const about = {
      rows: 0,
      labelColumns: 6,
      groups: services.map((service, number) => ({ source: 'made', number, service, stepMs, faults: [] })),
      cells: cells.map((c, i) => ({ ...c, group: Math.floor(i / 20), fromMs: 0, toMs: 499_000, incidents: [] })),
    };
    const scored: ScoredRows = { cells, about, scores: { 'out-of-fold': scores, fault: [], service: [] } };
    return judgeScores(scored, split, rules);
  }

  it('is decided on services that nobody trained on', () => {
    const champion = scoredBy((service, i) => service === 'seen' || i < 10);
    const better = scoredBy((service, i) => service === 'unseen' || i < 10);
    expect(champion.model.unseenServices).to.include({ incidents: 20, caught: 10 });
    expect(better.model.outOfFold).to.include({ incidents: 20, caught: 10 });
    expect(verdictOn(champion, better)).to.nested.include({ decision: 'adopt', 'difference.value': 0.5 });
    expect(verdictOn(better, champion).decision).to.equal('keep');
  });

  it('keeps the champion for less than three points', () => {
    const champion = scoredBy((_, i) => i < 10);
    expect(verdictOn(champion, champion).decision).to.equal('keep');
    expect(verdictOn(champion, champion).sentence).to.include('+0.0 points');
  });

  it('keeps the champion if recall is bought with false alarms', () => {
    const champion = scoredBy((_, i) => i < 10);
    const better = scoredBy((_, i) => i < 15);
    const loud: Judged = {
      ...better,
      model: { ...better.model, unseenServices: { ...better.model.unseenServices, falseAlarmsPerCellDay: 3 } },
    };
    expect(verdictOn(champion, better).decision).to.equal('adopt');
    expect(verdictOn(champion, loud)).to.include({ decision: 'keep' });
    expect(verdictOn(champion, loud).sentence).to.include('more than is allowed');
  });

  it('is told in the model card only if it was made on the data of the shipped model', () => {
    const { model } = scoredBy(() => true);
    const verdict = verdictOn(
      scoredBy(() => true),
      scoredBy(() => true),
    );
    const comparison: ChallengerComparison = {
      ...{ model: 'network', parameters: { weights: 7 }, budget: { falseAlarmsPerCellDay: 0.1, alarmTimeShare: 0.01 } },
      ...{ ...model, horizonTicks: 50, dataSha256: 'd', verdict, champion: { model: 'm', version: '1', ...model } },
    };
    expect(challengerSection(comparison, 'd'))
      .to.include(verdict.sentence)
      .and.to.include('unseen services: the model');
    expect(challengerSection(comparison, 'other')).to.include('Not measured on this data');
    expect(challengerSection(null, 'd')).to.include('npm run train:challenger');
  });
});

describe('models/challenger.json', () => {
  const file = join(packageRoot, 'models', 'challenger.json');
  const read = <T>(path: string): T => JSON.parse(readFileSync(path, 'utf8')) as T;

  it('compares with the shipped model on the data it was trained on', function () {
    if (!existsSync(file)) this.skip();
    const comparison = read<ChallengerComparison>(file);
    const manifest = read<{ model: string; version: string; dataSha256: string; horizonsSteps: number[] }>(
      join(packageRoot, 'models', 'manifest.json'),
    );
    expect(comparison.champion).to.include({ model: manifest.model, version: manifest.version });
    expect(comparison.dataSha256).to.equal(manifest.dataSha256);
    expect(comparison.horizonTicks).to.equal(manifest.horizonsSteps.at(-1));
    for (const part of ['heldOut', 'unseenServices', 'outOfFold'] as const) {
      const [ours, theirs] = [comparison.champion[part], comparison[part]];
      expect(theirs.incidents, part).to.equal(ours.incidents);
      expect(theirs.healthyCellDays, part).to.equal(ours.healthyCellDays);
    }
    const { unseenServices, champion, verdict } = comparison;
    const points = 100 * (unseenServices.recall.value - champion.unseenServices.recall.value);
    if (verdict.decision === 'adopt') expect(points).to.be.at.least(3 - 1e-2);
    expect(100 * verdict.difference.value).to.be.closeTo(points, 1e-2);
  });
});
