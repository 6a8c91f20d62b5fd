/** A week of one service: how many hours a cell beyond the two stands, at fault rates that are said and not measured. Pure. */
import type { ArmName } from './arms';
import type { FaultName } from './cases';
import type { RunResult } from './result';

export interface Rates {
  /** Failures per cell and day, of all kinds together; spread evenly over the kinds that were run. */
  failuresPerCellDay: number;
  /** Harmless events that resemble a failure, per cell and day. */
  lookAlikesPerCellDay: number;
  /** From the failure until the source is repaired and has its traffic back. */
  repairS: number;
  /** How long a synthetic cell is kept idle afterwards. */
  idleS: number;
}

export const rates: Rates = {
  failuresPerCellDay: 1 / 30,
  lookAlikesPerCellDay: 1,
  repairS: 15 * 60,
  idleS: 1800,
};

/** Where the rates come from, for whoever reads the hours. */
export const ratesSource = [
  'one failure per cell in 30 days, spread evenly over the kinds above, and one harmless event per cell and day that resembles one: assumptions, no measurement.',
  'Published studies count incidents, not failures per cell: of 152 severe ones at Microsoft Teams (Ghosh et al., SoCC 2022) 16 % came from dependencies, 16 % from infrastructure,',
  '11 % from database or network and 53 % from code, configuration and deployment.',
  'A failed source is back after 15 minutes (`policy.outageMinutes`), a synthetic cell is then kept idle for 30 (`policy.retireAfterS`).',
];

const daysOfWeek = 7;
const cells = 2;
export const spareHoursOfWeek = 24 * daysOfWeek;

/**
 * Hours of standby in a week of a service of two cells. Null where the arm has no runs. `perEvent` of the arms that make a
 * cell only when needed is what was measured, and for each cell that was made the time until it is retired.
 */
export function standbyHoursOfWeek(arm: ArmName, runs: readonly RunResult[], at: Rates): number | null {
  const own = runs.filter((run) => run.arms[arm]);
  if (own.length === 0) return null;
  if (arm === 'a' || arm === 'b') return 0;
  if (arm === 'c') return spareHoursOfWeek;
  const faults = [...new Set(own.map(({ fault }) => fault))];
  const kinds = faults.filter((fault) => fault !== 'look-alikes');
  const perWeek = (perCellDay: number): number => perCellDay * cells * daysOfWeek;
  const failures = kinds.map(
    (kind) => (perWeek(at.failuresPerCellDay) / kinds.length) * secondsPerEvent(arm, own, kind, at),
  );
  const harmless = faults.includes('look-alikes')
    ? perWeek(at.lookAlikesPerCellDay) * secondsPerEvent(arm, own, 'look-alikes', at)
    : 0;
  return (failures.reduce((sum, s) => sum + s, 0) + harmless) / 3600;
}

function secondsPerEvent(arm: ArmName, runs: readonly RunResult[], fault: FaultName, at: Rates): number {
  const standby = runs.filter((run) => run.fault === fault).map((run) => run.arms[arm]!.standbyS);
  const afterwards = (fault === 'look-alikes' ? 0 : at.repairS) + at.idleS;
  const seconds = standby.map((s) => (s > 0 ? s + afterwards : 0));
  return seconds.reduce((sum, s) => sum + s, 0) / Math.max(1, seconds.length);
}
