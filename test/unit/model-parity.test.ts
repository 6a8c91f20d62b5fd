/** The rows a model is trained on are the rows it is served with, to the last bit. */
import { expect } from 'chai';
import { policySchema } from '../../blueprints/schema';
import { join } from 'node:path';
import { packageRoot } from '../../package-root';
import { readRecordedGroups, type RecordedGroup } from '../../models/training/recorded';
import { CellScoring, type ScoringModel } from '../../prediction/cell-scoring';
import { Counters } from '../../prediction/counters';
import { featureRows } from '../../prediction/feature-rows';
import { featureNames } from '../../prediction/feature-spec';
import { StepBuffer } from '../../prediction/step-buffer';

const bits = (row: Float32Array) =>
  Buffer.from(Uint8Array.from(new Uint8Array(row.buffer, row.byteOffset, row.byteLength))).toString('hex');

/** Keeps the rows it is asked about, and finds every cell well: no baseline is frozen. */
function recordingModel(rowsOfTick: (rows: Float32Array, count: number) => void): ScoringModel {
  let buffer = new Float32Array(0);
  return {
    id: 'recording',
    bins: 1,
    forest: undefined,
    manifest: { horizonsSteps: [60] } as ScoringModel['manifest'],
    rows: (count) => (buffer = new Float32Array(count * featureNames.length)),
    run: async (count) => {
      rowsOfTick(buffer, count);
      return new Float32Array(count);
    },
  };
}

async function firstGroupWithPeers(): Promise<RecordedGroup> {
  for await (const group of readRecordedGroups(join(packageRoot, 'models', 'recordings', 'lab-3'), 'lab-3')) {
    if (group.cells.length >= 3) return group;
  }
  throw new Error('The recording has no service of three cells.');
}

describe('Training and serving', () => {
  it('compute bit-equal rows from the same recorded telemetry of a service of several cells', async function () {
    this.timeout(60_000);
    const group = await firstGroupWithPeers();
    const { stepMs, cells } = group;
    const facts = Object.fromEntries(cells.map(({ cell, facts: known }) => [cell, known]));
    const samples = cells.flatMap((c) => c.samples);
    const trained = new Map<string, string>();
    for (const row of featureRows(samples, stepMs, facts)) trained.set(`${row.cell}@${row.atMs}`, bits(row.features));

    const served = new Map<string, string>();
    let tickMs = 0;
    let scoredCells: string[] = [];
    const rows: string[] = [];
    const scoring = new CellScoring({
      model: recordingModel((buffer, count) => {
        for (let i = 0; i < count; i++) {
          rows.push(bits(buffer.subarray(i * featureNames.length, (i + 1) * featureNames.length)));
        }
      }),
      directory: {
        find: (cell) => {
          const known = facts[cell];
          return (
            known && {
              service: known.cohort ?? '',
              policy: policySchema.parse({}),
              sloLatencyMs: known.sloLatencyMs ?? NaN,
              sloErrorRatio: 0.05,
              synthetic: false,
            }
          );
        },
        refresh: async () => undefined,
      },
      stepMs,
      riskChangedEveryMs: 2000,
      counters: new Counters(),
    });
    const buffer = new StepBuffer(stepMs);
    for (const sample of samples) {
      scoring.met(sample.cell, 'telemetry/0', 0);
      buffer.add(sample);
    }
    const lastMs = Math.max(...samples.map((s) => s.atMs));
    for (tickMs = buffer.firstTickMs() as number; tickMs < lastMs + stepMs; tickMs += stepMs) {
      buffer.release(tickMs, (sample) => scoring.observe(sample));
      rows.length = 0;
      scoredCells = (await scoring.tick(tickMs)).map(({ score }) => score.cell);
      scoredCells.forEach((cell, i) => served.set(`${cell}@${tickMs}`, rows[i] as string));
    }
    expect(served.size).to.be.greaterThan(300);
    expect([...served.keys()].sort()).to.deep.equal([...trained.keys()].sort());
    const different = [...served].filter(([key, row]) => trained.get(key) !== row).map(([key]) => key);
    expect(different).to.deep.equal([]);
  });
});
