/** Looks at the rest of the fleet and at the service's past: the facts that guards and plan of a failover are computed from. */
import { RefusedError, type CellRecord } from '../blueprints/records';
import type { PastRun } from '../blueprints/past-failovers';
import type { TrafficView } from '../envoy/traffic-client';
import type { Durations, FleetFacts, RisingCell, TimedStep } from '../workflows/fleet';
import { traitsOf } from '../workflows/fleet';
import type { FailoverActivities, Subject } from '../workflows/steps';
import { capacityBp } from './measures';
import type { Ports, Predicted } from './ports';

const dayMs = 24 * 3_600_000;
/** Durations are read from the newest runs only: a service changes. */
const stepsRemembered = 50;

export function surveying({ store, traffic, failovers }: Ports): Pick<FailoverActivities, 'surveyFleet'> {
  return {
    async surveyFleet({ service: name, cell: cellName }: Subject): Promise<FleetFacts> {
      const nowMs = Date.now();
      const [service, cells, predicted, past, stop] = await Promise.all([
        store.service(name),
        store.cells(),
        failovers.predicted(),
        store.pastFailovers(name, new Date(nowMs - dayMs).toISOString()),
        store.fleetStop?.(),
      ]);
      const own = cells.find((c) => c.name === cellName);
      if (!service || !own) throw new RefusedError(`service ${name} has no cell ${cellName}: apply it first`);
      const [blueprint, blueprintAgeMs, view] = await Promise.all([
        store.blueprint(own.blueprint.name, own.blueprint.version),
        store.blueprintAgeMs(own.blueprint.name, own.blueprint.version),
        traffic.getTraffic(name).catch(() => null),
      ]);
      const declared = cells.filter((c) => c.role !== 'synthetic');
      const rising = risingCells(predicted, declared);
      const keptMs = service.spec.policy.retireAfterS * 1000;
      return {
        atMs: nowMs,
        stop: stop ? { by: stop.by, reason: stop.reason } : null,
        rising,
        population: population([...rising, asRising(own)], declared),
        past: past.map(({ cell, outcome, endedAt, syntheticCell }) => ({
          cell,
          outcome,
          endedAtMs: Date.parse(endedAt),
          hadCell: syntheticCell !== null,
        })),
        standbyCellHours: standbyCellHours(past, keptMs, nowMs),
        durations: durationsOf(past),
        requestsPerSecond: view && measuredRate(view),
        capacityBp: view && blueprint ? capacityBp(view, blueprint.spec.capacity.requestsPerSecond) : null,
        blueprintAgeMs,
      };
    },
  };
}

/** Predictions whose cell is declared: what is not known has nothing in common with anything. */
function risingCells(predicted: Predicted[], declared: CellRecord[]): RisingCell[] {
  const byName = new Map(declared.map((cell) => [cell.name, cell]));
  return predicted.flatMap(({ cell, ...rest }) => {
    const record = byName.get(cell);
    return record ? [{ ...asRising(record), ...rest }] : [];
  });
}

function asRising({ name, service, zone, blueprint }: CellRecord): RisingCell {
  const from = `${blueprint.name}@${blueprint.version}`;
  return { service, cell: name, zone, blueprint: from, sinceMs: 0, isActive: false, metric: null, model: null };
}

/** How many declared cells have each trait of the rising ones: few numbers, however large the fleet. */
function population(rising: RisingCell[], declared: CellRecord[]): Record<string, number> {
  const wanted = new Set(rising.flatMap(traitsOf));
  const counts: Record<string, number> = {};
  for (const cell of declared) {
    for (const trait of traitsOf(asRising(cell))) if (wanted.has(trait)) counts[trait] = (counts[trait] ?? 0) + 1;
  }
  return counts;
}

/** Over all cells, the time each was there for failovers of the last day: made, used, and kept idle after them. */
export function standbyCellHours(past: PastRun[], keptMs: number, nowMs: number): number {
  const byCell = new Map<string, [number, number][]>();
  for (const run of past) {
    if (run.syntheticCell === null) continue;
    const made = run.phaseTimes.find((p) => p.phase !== 'assessing');
    const beginMs = Math.max(nowMs - dayMs, Date.parse(made?.at ?? run.startedAt));
    const isKept = run.outcome === 'drained' || run.outcome === 'aborted';
    const endMs =
      run.outcome === 'failed-over' ? nowMs : Math.min(nowMs, Date.parse(run.endedAt) + (isKept ? keptMs : 0));
    byCell.set(run.syntheticCell, [...(byCell.get(run.syntheticCell) ?? []), [beginMs, endMs]]);
  }
  let totalMs = 0;
  for (const spans of byCell.values()) {
    // A cell that was taken again while it was idle is counted once.
    let reachedMs = 0;
    for (const [beginMs, endMs] of spans.sort((a, b) => a[0] - b[0])) {
      totalMs += Math.max(0, endMs - Math.max(beginMs, reachedMs));
      reachedMs = Math.max(reachedMs, endMs);
    }
  }
  return totalMs / 3_600_000;
}

function durationsOf(past: PastRun[]): Durations {
  const durations: Partial<Record<TimedStep, number[]>> = {};
  const oldestFirst = [...past].sort((a, b) => a.endedAt.localeCompare(b.endedAt));
  for (const { step, ms } of oldestFirst.flatMap((run) => run.took ?? [])) {
    durations[step] = [...(durations[step] ?? []), ms].slice(-stepsRemembered);
  }
  return durations;
}

function measuredRate(view: TrafficView): number | null {
  const rate = view.cells.filter((c) => c.measured).reduce((sum, c) => sum + c.requestsPerSecond, 0);
  return rate > 0 ? rate : null;
}
