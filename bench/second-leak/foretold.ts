/** When the engine's own scoring calls each leak of a story, by the default policy. */
import { policySchema } from '../../blueprints/schema';
import { CellScoring, type ScoringModel } from '../../prediction/cell-scoring';
import { Counters } from '../../prediction/counters';
import { StepBuffer } from '../../prediction/step-buffer';
import { leakBytesPerSecond, type LeakStory } from './stories';

const stepMs = 1000;

/** How a leak was called: by the level that was reached and then held until the leak's end. */
export interface Foretold {
  /** Seconds from the beginning of the leak to that level, `prepare` or `shift`; 0 if it was held already, null if never. */
  prepareS: number | null;
  shiftS: number | null;
  /** Of the heap's limit, at the level `prepare`. */
  heapShare: number | null;
  /** Seconds that were left then until the limit, at the leak's rate. */
  leftS: number | null;
}

const notCalled: Foretold = { prepareS: null, shiftS: null, heapShare: null, leftS: null };

export async function foretell(model: ScoringModel, { samples, leaks }: LeakStory): Promise<Foretold[]> {
  const policy = policySchema.parse({ autonomy: 'act' });
  const known = { service: 'carts', policy, sloLatencyMs: 250, sloErrorRatio: 0.05, synthetic: false };
  const scoring = new CellScoring({
    model,
    directory: { find: () => known, refresh: async () => undefined },
    stepMs,
    riskChangedEveryMs: stepMs,
    counters: new Counters(),
  });
  const buffer = new StepBuffer(stepMs);
  const heapLimit = samples.find(({ metric }) => metric === 'heap.limit_bytes')?.value ?? NaN;
  let heap = NaN;
  const found = leaks.map(() => ({ ...notCalled }));
  for (const sample of samples) {
    scoring.met(sample.cell, 'telemetry/0', 0);
    buffer.add(sample);
  }
  const lastMs = samples.reduce((last, { atMs }) => Math.max(last, atMs), -Infinity);
  for (let tickMs = buffer.firstTickMs() ?? Infinity; tickMs <= lastMs; tickMs += stepMs) {
    const heaps: number[] = [];
    buffer.release(tickMs, (sample) => {
      if (sample.metric === 'heap.used_bytes') heaps.push(sample.value);
      scoring.observe(sample);
    });
    if (heaps.length > 0) heap = Math.max(...heaps);
    const [scored] = await scoring.tick(tickMs);
    const level = scored?.event?.level ?? 'clear';
    const index = leaks.findLastIndex(({ beganMs }) => beganMs <= tickMs);
    const leak = leaks[index];
    const calls = found[index];
    if (!leak || !calls || (leak.letGoMs !== null && tickMs > leak.letGoMs)) continue;
    if (level === 'clear') Object.assign(calls, notCalled);
    else {
      // What is held at the first tick of a leak was not said because of it.
      const afterS = tickMs - leak.beganMs < stepMs ? 0 : (tickMs - leak.beganMs) / 1000;
      if (calls.prepareS === null) {
        calls.prepareS = afterS;
        calls.heapShare = heap / heapLimit;
        calls.leftS = (heapLimit - heap) / leakBytesPerSecond;
      }
      calls.shiftS = level === 'shift' ? (calls.shiftS ?? afterS) : null;
    }
  }
  return found;
}
