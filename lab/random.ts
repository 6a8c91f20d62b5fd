/** Seeded randomness, so that a run of the lab can be repeated from its printed seed. */

/** mulberry32: uniform in [0, 1). Small, fast and good enough for workloads; not for secrets. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Exponential with mean 1: the gap between arrivals of a Poisson process of rate 1. */
export function exponential(random: () => number): number {
  return -Math.log(1 - random());
}

/** Uniform in the logarithm, between `low` and `high`. */
export function logUniform(random: () => number, low: number, high: number): number {
  return low * Math.exp(random() * Math.log(high / low));
}

export function pick<T>(random: () => number, options: readonly T[]): T {
  const option = options[Math.floor(random() * options.length)];
  if (option === undefined) throw new Error('pick() needs at least one option.');
  return option;
}
