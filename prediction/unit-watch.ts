/**
 * Notices when a producer changes the unit of a metric (bytes to MiB, seconds to ms): a steady value jumps by a power of
 * 1000 or 1024 from one sample to the next. Such a jump says something about the producer, not yet about the cell.
 */
import { maxInstancesPerCell, metricIndex } from './cell-window';
import type { Sample } from './contracts';
import { metricNames, metrics, type MetricName } from './metrics';
import type { WordReader, WordWriter } from './words';

/** So many samples in a row within this factor of the one before make a value steady. */
const steadySamples = 10;
const steadyFactor = 1.5;
/** A jump that has lasted so many samples is taken for what it says. */
const doubtedSamples = 60;
const jumps = [1e3, 1024, 1e6, 1024 ** 2, 1e9, 1024 ** 3];

/** Clocks count up or down and begin anew: their jumps mean nothing. */
const clocks: ReadonlySet<MetricName> = new Set([
  'process.uptime_s',
  'change.age_s',
  'certificate.left_s',
  'queue.oldest_age_s',
]);

/** By how much a jump may miss its power. Nothing uses a thousand times the memory from now on; a latency might. */
const tolerances = metricNames.map((name) => {
  const { unit } = metrics[name];
  if (unit === 'By') return 0.25;
  return unit === 's' && !clocks.has(name) ? 0.1 : 0;
});

const isBytes = metricNames.map((name) => metrics[name].unit === 'By');

/** Per metric of an instance: the level before the jump if there is one, else the last value; its steadiness; the doubt. */
const fields = 3;
const [LEVEL, STEADY, DOUBTED] = [0, 1, 2] as const;

export type UnitVerdict =
  | 'as-usual'
  /** Believed for what it is worth: a latency may really be a thousand times what it was. */
  | 'doubted'
  /** Not to be used. */
  | 'refused';

interface InstanceState {
  levels: Float64Array;
  newestMs: number;
}

/** An instance that was not heard of for so long makes room for another one. */
const forgetAfterMs = 600_000;

/** The instances of one cell. */
export class UnitWatch {
  private readonly instances = new Map<string, InstanceState>();
  private lastDoubtMs = -Infinity;

  /** Whether a doubtful value was seen within the last `withinMs`. */
  isDoubted(atMs: number, withinMs: number): boolean {
    return atMs - this.lastDoubtMs < withinMs;
  }

  save(out: WordWriter): void {
    out.number(this.lastDoubtMs);
    out.number(this.instances.size);
    for (const [instance, { levels, newestMs }] of this.instances) {
      out.text(instance);
      out.number(newestMs);
      const known = metricNames.map((_, m) => m * fields).filter((at) => levels[at + LEVEL] !== 0);
      out.number(known.length);
      for (const at of known) {
        out.number(at);
        out.numbers(levels, at, at + fields);
      }
    }
  }

  /** Brings a new watch to where the one that was saved stood. Throws RangeError for what no watch can be. */
  restore(from: WordReader): void {
    this.lastDoubtMs = from.number();
    for (let left = from.count(maxInstancesPerCell); left > 0; left--) {
      const instance = from.text();
      const state = { levels: new Float64Array(metricNames.length * fields), newestMs: from.number() };
      this.instances.set(instance, state);
      for (let known = from.count(metricNames.length); known > 0; known--) {
        const at = from.count((metricNames.length - 1) * fields);
        from.numbers(state.levels, at, at + fields);
      }
    }
  }

  judge({ instance, metric, value, atMs }: Sample): UnitVerdict {
    const index = metricIndex[metric];
    const tolerance = tolerances[index] as number;
    if (tolerance === 0 || !(value > 0)) return 'as-usual';
    const state = this.state(instance, atMs);
    if (!state) return 'as-usual';
    const at = index * fields;
    const level = state[at + LEVEL] as number;
    const factor = level > 0 ? (value > level ? value / level : level / value) : Infinity;
    const isJump = factor >= 700 && jumps.some((jump) => Math.abs(factor / jump - 1) <= tolerance);
    const doubted = state[at + DOUBTED] as number;
    const begins = doubted === 0 && isJump && (state[at + STEADY] as number) >= steadySamples;
    if (begins || (doubted > 0 && isJump)) {
      state[at + DOUBTED] = begins ? doubtedSamples : doubted - 1;
      if ((state[at + DOUBTED] as number) > 0) {
        if (atMs > this.lastDoubtMs) this.lastDoubtMs = atMs;
        return isBytes[index] ? 'refused' : 'doubted';
      }
    }
    state[at + DOUBTED] = 0;
    state[at + STEADY] = factor <= steadyFactor ? (state[at + STEADY] as number) + 1 : 0;
    state[at + LEVEL] = value;
    return 'as-usual';
  }

  private state(instance: string, atMs: number): Float64Array | undefined {
    let state = this.instances.get(instance);
    if (!state) {
      if (this.instances.size >= maxInstancesPerCell) this.forgetOlderThan(atMs - forgetAfterMs);
      if (this.instances.size >= maxInstancesPerCell) return undefined;
      state = { levels: new Float64Array(metricNames.length * fields), newestMs: atMs };
      this.instances.set(instance, state);
    }
    if (atMs > state.newestMs) state.newestMs = atMs;
    return state.levels;
  }

  private forgetOlderThan(oldestMs: number): void {
    for (const [instance, { newestMs }] of this.instances) if (newestMs < oldestMs) this.instances.delete(instance);
  }
}
