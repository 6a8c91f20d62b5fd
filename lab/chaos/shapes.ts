/** How a fault grows: the shapes as functions of time, and as orders that a runner gives one after the other. */

export const faultShapes = ['linear', 'stepwise', 'per-load', 'exponential', 'pauses'] as const;
export type FaultShape = (typeof faultShapes)[number];

export interface Growth {
  startS: number;
  /** Seconds from the start until the fault is expected to have done its work. */
  timeS: number;
  /** Orders are planned up to here; the last level stays in force. */
  untilS: number;
  shape: FaultShape;
  /** Load at a time relative to its mean, for faults that grow with each request. */
  loadAt: (atS: number) => number;
  random: () => number;
}

export interface LevelAt {
  atS: number;
  level: number;
}

const steepness = 3;

/** Orders more often than this would change nothing that can be measured. */
const finestStepS = 0.5;

/** Levels of something that grows by its level, such as a delay: it reaches `critical` after the growth's time, and goes on. */
export function rampingLevels(growth: Growth, critical: number, most: number): LevelAt[] {
  const { startS, timeS, untilS, shape, loadAt, random } = growth;
  const stairs = 4 + Math.floor(4 * random());
  const pauseFrom = 0.3 + 0.4 * random();
  const pauseFor = 0.2 + 0.3 * random();
  const progress = (x: number, atS: number): number => {
    switch (shape) {
      case 'linear':
        return x;
      case 'stepwise':
        return Math.floor(x * stairs + 1) / stairs;
      case 'per-load':
        return x * loadAt(atS);
      case 'exponential':
        return Math.expm1(steepness * x) / Math.expm1(steepness);
      case 'pauses':
        return x < pauseFrom ? x : Math.max(pauseFrom, x - pauseFor);
    }
  };
  const levels: LevelAt[] = [];
  const everyS = Math.max(finestStepS, timeS / 60);
  for (let atS = startS; atS <= untilS; atS += everyS) {
    const level = Math.min(most, critical * progress((atS - startS + everyS) / timeS, atS));
    const before = levels.at(-1)?.level ?? 0;
    if (Math.abs(level - before) > 0.01 * critical) levels.push({ atS, level });
    if (level >= most) break;
  }
  return levels;
}

/** Levels of something that grows by itself at its level, such as a leak: `total` is reached after the growth's time. */
export function accumulatingLevels(growth: Growth, total: number): LevelAt[] {
  const { startS, timeS, untilS, shape, loadAt, random } = growth;
  const mean = total / timeS;
  switch (shape) {
    case 'linear':
      return [{ atS: startS, level: mean }];
    case 'stepwise': {
      const periodS = Math.max(4, timeS / (5 + 5 * random()));
      const onFor = 0.25;
      const levels: LevelAt[] = [];
      for (let atS = startS; atS < untilS; atS += periodS) {
        levels.push({ atS, level: mean / onFor }, { atS: atS + onFor * periodS, level: 0 });
      }
      return levels;
    }
    case 'per-load': {
      const everyS = Math.max(3, timeS / 12);
      const levels: LevelAt[] = [];
      for (let atS = startS; atS < untilS; atS += everyS) levels.push({ atS, level: mean * loadAt(atS + everyS / 2) });
      return levels;
    }
    case 'exponential': {
      const everyS = Math.max(2, timeS / 12);
      const levels: LevelAt[] = [];
      for (let atS = startS; atS < untilS; atS += everyS) {
        // Beyond the expected time it goes on, but no steeper.
        const x = Math.min(1, (atS + everyS / 2 - startS) / timeS);
        levels.push({ atS, level: (mean * steepness * Math.exp(steepness * x)) / Math.expm1(steepness) });
      }
      return levels;
    }
    case 'pauses': {
      const pauseS = startS + timeS * (0.3 + 0.4 * random());
      const pauseForS = 4 + 0.3 * timeS * random();
      return [
        { atS: startS, level: mean },
        { atS: pauseS, level: 0 },
        { atS: pauseS + pauseForS, level: mean },
      ];
    }
  }
}
