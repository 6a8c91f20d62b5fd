/** What a failover is told about the rest of the fleet, and about the past: what its guards and its plan are computed from. */
import type { Outcome } from './messages';

/** A cell that is predicted to fail now, this failover's own included. */
export interface RisingCell {
  service: string;
  cell: string;
  zone: string;
  /** `name@version`. */
  blueprint: string;
  /** Workflow time at which its failover began. */
  sinceMs: number;
  /** Whether something has been made or moved for it already. */
  isActive: boolean;
  /** The metric that speaks most for the failure, and the model that says so; null where not known. */
  metric: string | null;
  model: string | null;
}

/** A failover of the same service that has ended within the last 24 hours. */
export interface PastFailover {
  cell: string;
  outcome: Outcome;
  endedAtMs: number;
  /** Whether a synthetic cell was made or taken for it. */
  hadCell: boolean;
}

/** How long each kind of step took lately in this service, in milliseconds; the newest last. */
export type Durations = Partial<Record<TimedStep, number[]>>;
export const timedSteps = ['ensure', 'warm', 'arm', 'shift'] as const;
export type TimedStep = (typeof timedSteps)[number];

export interface FleetFacts {
  /** When they were gathered. */
  atMs: number;
  /** The fleet-wide stop, if it is in force. */
  stop: { by: string; reason: string } | null;
  rising: RisingCell[];
  /** How many declared cells have a trait in common, for the traits of the rising ones: `fleet`, `service:shop`, `zone:a`, ... */
  population: Record<string, number>;
  past: PastFailover[];
  /** Hours that synthetic cells of the service existed within the last 24. */
  standbyCellHours: number;
  durations: Durations;
  /** Measured requests per second of the whole service; null while nothing is measured. */
  requestsPerSecond: number | null;
  /** What a cell like the source can carry of that, in basis points; null while nothing is measured, absent in older histories. */
  capacityBp?: number | null;
  /** How long ago the source's blueprint last changed, in milliseconds; null where not known. */
  blueprintAgeMs: number | null;
}

/** What two cells can have in common. */
export function traitsOf(cell: Pick<RisingCell, 'service' | 'zone' | 'blueprint'>): string[] {
  return [`service:${cell.service}`, `zone:${cell.zone}`, `blueprint:${cell.blueprint}`, 'fleet'];
}
