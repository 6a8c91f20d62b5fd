/** How long a tick takes: ten thousand cells, one cell, one explanation; and how much memory a cell takes. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { policySchema } from '../blueprints/schema';
import type { CellDirectory } from '../prediction/cell-directory';
import { CellScoring, type ScoringModel } from '../prediction/cell-scoring';
import { Counters } from '../prediction/counters';
import { DriftWatch } from '../prediction/drift';
import { contributions } from '../prediction/explain';
import { featureNames } from '../prediction/feature-spec';
import type { Model } from '../prediction/model';
import { atMost, cpuMs, plain, quantile, type Figure } from './figures';
import { cellName, samplesOf } from './telemetry';

const t0 = 1_795_328_800_000;
const policy = policySchema.parse({ autonomy: 'observe' });
const cellsPerService = 20;

/** Services of twenty cells, so that peers are compared too. */
export const directory: CellDirectory = {
  find: (cell) => ({
    service: `service-${Math.floor(Number(cell.slice('bench-'.length)) / cellsPerService)}`,
    policy,
    sloLatencyMs: 250,
    sloErrorRatio: 0.05,
    synthetic: false,
  }),
  refresh: async () => undefined,
};

/** A model that notes how long the features before its run and the run itself took. */
class WatchedModel implements ScoringModel {
  rowsMs: number[] = [];
  runMs: number[] = [];
  private askedMs = 0;

  constructor(private readonly model: Model) {}

  get id(): string {
    return this.model.id;
  }
  get bins(): number {
    return this.model.bins;
  }
  get manifest(): Model['manifest'] {
    return this.model.manifest;
  }
  get forest(): Model['forest'] {
    return this.model.forest;
  }
  rows(count: number): Float32Array {
    const rows = this.model.rows(count);
    this.askedMs = cpuMs();
    return rows;
  }
  async run(count: number): Promise<Float32Array> {
    const startedMs = cpuMs();
    const hazards = await this.model.run(count);
    this.rowsMs.push(startedMs - this.askedMs);
    this.runMs.push(cpuMs() - startedMs);
    return hazards;
  }
}

function newScoring(model: ScoringModel): CellScoring {
  const references = model.manifest.drift ?? [];
  const drift = new DriftWatch({ references, featureNames });
  const counters = new Counters();
  return new CellScoring({ model, directory, stepMs: 1000, riskChangedEveryMs: 2000, counters, drift });
}

function memoryBytes(): number {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  // `external` holds the array buffers.
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

export async function benchTenThousand(shipped: Model, cells: number): Promise<Figure[]> {
  const model = new WatchedModel(shipped);
  const before = memoryBytes();
  const scoring = newScoring(model);
  const ticks: number[] = [];
  const observed: number[] = [];
  const warmUp = 40;
  const measured = 20;
  shipped.rows(cells);
  for (let second = 0; second < warmUp + measured; second++) {
    const atMs = t0 + second * 1000;
    let observeMs = 0;
    for (let cell = 0; cell < cells; cell++) {
      const samples = samplesOf(cell, second, atMs);
      const startedMs = cell % 100 === 0 ? cpuMs() : 0;
      scoring.met(cellName(cell), 'bench/0', 0);
      for (const sample of samples) scoring.observe(sample);
      if (cell % 100 === 0) observeMs += cpuMs() - startedMs;
    }
    const startedMs = cpuMs();
    await scoring.tick(atMs);
    if (second < warmUp) continue;
    ticks.push(cpuMs() - startedMs);
    observed.push(observeMs * 100);
  }
  const bytesPerCell = (memoryBytes() - before) / cells;
  const tick = quantile(ticks, 0.5);
  const features = quantile(model.rowsMs.slice(warmUp), 0.5);
  const onnx = quantile(model.runMs.slice(warmUp), 0.5);
  const all = `${cells} cells of 12 metrics`;
  return [
    atMost(`tick of ${all}`, tick, 'ms CPU', 250),
    plain('  of it features', features, 'ms CPU'),
    plain('  of it ONNX', onnx, 'ms CPU'),
    plain('  of it scores, drift, drivers', tick - features - onnx, 'ms CPU'),
    plain('samples into windows, per tick', quantile(observed, 0.5), 'ms CPU'),
    atMost('memory per cell', bytesPerCell / 1024, 'KiB', 64),
  ];
}

export async function benchOneCell(model: Model): Promise<Figure[]> {
  const scoring = newScoring(model);
  const ticks: number[] = [];
  for (let second = 0; second < 3_000; second++) {
    const atMs = t0 + second * 1000;
    scoring.met(cellName(0), 'bench/0', 0);
    for (const sample of samplesOf(0, second, atMs)) scoring.observe(sample);
    const started = performance.now();
    await scoring.tick(atMs);
    if (second >= 500) ticks.push(performance.now() - started);
  }
  return [
    plain('tick of one cell, p50', quantile(ticks, 0.5), 'ms'),
    atMost('tick of one cell, p99', quantile(ticks, 0.99), 'ms', 1),
  ];
}

export async function benchExplanation(model: Model): Promise<Figure[]> {
  const { forest } = model;
  if (!forest) return [];
  const scoring = newScoring(model);
  const cells = 200;
  for (let second = 0; second < 60; second++) {
    for (let cell = 0; cell < cells; cell++) {
      scoring.met(cellName(cell), 'bench/0', 0);
      for (const sample of samplesOf(cell, second, t0 + second * 1000)) scoring.observe(sample);
    }
    await scoring.tick(t0 + second * 1000);
  }
  const rows = model.rows(cells);
  const hazards = await model.run(cells);
  const explain = (i: number) => contributions(forest, rows, i * featureNames.length, hazards, i * model.bins);
  for (let i = 0; i < cells; i++) explain(i);
  const startedMs = cpuMs();
  for (let i = 0; i < cells; i++) explain(i);
  const trees = forest.bins.reduce((n, bin) => n + bin.trees.length, 0);
  return [atMost(`explanation of a row (${trees} trees)`, (cpuMs() - startedMs) / cells, 'ms CPU', 3)];
}
