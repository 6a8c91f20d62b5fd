/** What a run of one fault and seed leaves behind: one line of JSON, all its arms in it. */
import type { ArmName } from './arms';
import type { FaultName } from './cases';

export interface ArmResult {
  requests: number;
  failed: number;
  /** Answered well but later than the objective; not in `failed`. */
  overSlo: number;
  p99Ms: number;
  /** Failed ones by what callers saw. */
  failures: Record<string, number>;
  /** Failed or late, by second since the load began. */
  badPerS: number[];
  /** Failed or late before the fault: what the machine does to all. */
  badBefore: number;
  /** Seconds of a cell beyond the two, until the end of the run. */
  standbyS: number;
  /** Cells that had traffic taken from them though nothing was about to fail there. */
  falseShifts: number;
  /** When callers began to suffer, or the faulty cell died: seconds since the load began; null if neither. */
  failedAtS: number | null;
  /** Only of arms that foresee. */
  understudy?: UnderstudyResult;
}

export interface UnderstudyResult {
  /** First word of a risk of the faulty cell, in seconds since the load began; null if there was none. */
  riskAtS: number | null;
  armedAtS: number | null;
  /** First and last change of the faulty cell's share. */
  firstShiftAtS: number | null;
  evacuatedAtS: number | null;
  outcome: string | null;
  /** Highest probability of failure that was published for the faulty cell before its failure. */
  peakRisk: number | null;
  /** Published probability for the faulty cell by second; null where nothing was published. */
  riskPerS: (number | null)[];
  /** What the dossiers say, shortened: for whoever asks why. */
  story: string[];
}

export interface Machine {
  cpus: number;
  /** Share of all CPUs that was busy while the load ran, by whatever. */
  busy: number;
  /** Share of that time in which some process waited for a CPU; null where the kernel does not say. */
  pressure: number | null;
  /** At its end. */
  loadAverage: number[];
}

export interface RunResult {
  fault: FaultName;
  seed: number;
  mechanism: string;
  predictable: boolean;
  service: string;
  ratePerSecond: number;
  cellCapacity: number;
  sloMs: number;
  faultAtS: number;
  failureAtS: number | null;
  measuredFromS: number;
  endS: number;
  startedAt: string;
  tookS: number;
  machine: Machine;
  arms: Partial<Record<ArmName, ArmResult>>;
}
