/** The one table of where a failover touches the world: every activity, every call by which it changes something. From it the kill matrix is made. */
import type { CellProvider } from '../../cells/provider';
import type { ConfigurationStore } from '../../blueprints/store';
import type { TrafficClient } from '../../envoy/traffic-client';
import { shiftPurposes, type ShiftPurpose } from '../../workflows/failover';
import type { FailoverActivities, Step } from '../../workflows/steps';

type MethodsOf<T> = { [K in keyof T]: T[K] extends (...args: never[]) => unknown ? K : never }[keyof T] & string;

/** Whether a call leaves a trace outside the process. */
export type Nature = 'reads' | 'changes';

/** Every method of every port. A new one has no entry, and then this file does not compile. */
export const ports = {
  store: {
    acquireSyntheticCell: 'changes',
    appliedChange: 'reads',
    apply: 'changes',
    beginRetirement: 'changes',
    blueprint: 'reads',
    blueprintAgeMs: 'reads',
    cell: 'reads',
    cellStarts: 'reads',
    cells: 'reads',
    changeTraffic: 'changes',
    close: 'reads',
    decisions: 'reads',
    dossier: 'reads',
    dossiers: 'reads',
    expiredLeases: 'reads',
    finishRetirement: 'changes',
    fleetStop: 'reads',
    idleCells: 'reads',
    lastLook: 'reads',
    ledger: 'reads',
    migrate: 'reads',
    onChange: 'reads',
    onHoldings: 'reads',
    pastFailovers: 'reads',
    publishDecisions: 'changes',
    recordDecisions: 'changes',
    renewLease: 'changes',
    restCell: 'changes',
    resumeFleet: 'changes',
    saveDossier: 'changes',
    saveLook: 'changes',
    service: 'reads',
    services: 'reads',
    splitChanges: 'reads',
    splitLease: 'reads',
    stopFleet: 'changes',
    traffic: 'reads',
    updateCell: 'changes',
    oneAtATime: 'reads',
    whileUnknown: 'reads',
  } satisfies Record<MethodsOf<ConfigurationStore>, Nature>,
  traffic: {
    applySplit: 'changes',
    // Asks again for what has been made already.
    awaitChange: 'reads',
    armCell: 'changes',
    close: 'reads',
    drainCell: 'changes',
    getTraffic: 'reads',
    removeCell: 'changes',
    renewLease: 'changes',
    resume: 'changes',
    stop: 'changes',
    watch: 'reads',
  } satisfies Record<MethodsOf<TrafficClient>, Nature>,
  provider: {
    destroy: 'changes',
    ensure: 'changes',
    idle: 'changes',
    list: 'reads',
    observe: 'reads',
    removeLapsed: 'changes',
    renew: 'changes',
  } satisfies Record<MethodsOf<CellProvider>, Nature>,
};

export type PortName = keyof typeof ports;
type Changing<P extends PortName> = {
  [M in keyof (typeof ports)[P]]: (typeof ports)[P][M] extends 'changes' ? `${P}.${M & string}` : never;
}[keyof (typeof ports)[P]];

/** A call that changes something; `itself`: the activity as a whole, for those that only look. */
export type Effect = { [P in PortName]: Changing<P> }[PortName];

export type ActivityName = keyof FailoverActivities;

/** By which activity a step is carried out; null: it touches nothing outside. */
export const activityOf: Record<Step['kind'], ActivityName | null> = {
  load: 'loadContext',
  'await-turn': 'awaitTurn',
  survey: 'surveyFleet',
  ensure: 'ensureSyntheticCell',
  warm: 'warmSyntheticCell',
  arm: 'armCell',
  shift: 'shiftTraffic',
  watch: 'watchFailover',
  wait: null,
  rest: 'restAtIdle',
  retire: 'retireSyntheticCell',
  conclude: null,
  label: 'releaseSource',
  save: 'saveDossier',
  'begin-anew': null,
  finish: null,
};

/** What each activity changes, in the order in which it does. A run that changes anything else fails its row. */
export const sideEffects: Record<ActivityName, readonly Effect[]> = {
  loadContext: [],
  awaitTurn: [],
  surveyFleet: [],
  // Destroyed is only what another life left under the name of the new cell.
  ensureSyntheticCell: ['store.acquireSyntheticCell', 'provider.destroy', 'provider.ensure', 'store.updateCell'],
  warmSyntheticCell: ['store.updateCell'],
  armCell: ['traffic.armCell', 'store.updateCell'],
  shiftTraffic: ['traffic.applySplit', 'store.updateCell'],
  watchFailover: [],
  restAtIdle: ['traffic.removeCell', 'provider.idle', 'store.restCell'],
  retireSyntheticCell: ['traffic.removeCell', 'store.beginRetirement', 'provider.destroy', 'store.finishRetirement'],
  releaseSource: ['store.updateCell'],
  recordDecisions: ['store.recordDecisions'],
  saveDossier: ['store.saveDossier'],
};

/** What an activity does only to undo what it began, when a later call was refused: no row kills in it. */
export const undoings: Partial<Record<ActivityName, readonly Effect[]>> = {
  // A cell that was laid idle and may not rest after all is woken.
  restAtIdle: ['provider.ensure'],
};

/** An activity, or a shift for one purpose: each is a step of its own for whoever is killed in it. */
export type Deed = Exclude<ActivityName, 'shiftTraffic'> | `shiftTraffic(${ShiftPurpose})`;

export const deeds: readonly Deed[] = (Object.keys(sideEffects) as ActivityName[]).flatMap((name): Deed[] =>
  name === 'shiftTraffic' ? shiftPurposes.map((purpose) => `shiftTraffic(${purpose})` as const) : [name],
);

export function activityOfDeed(deed: Deed): ActivityName {
  return deed.replace(/\(.*/, '') as ActivityName;
}

export interface Point {
  deed: Deed;
  effect: Effect | 'itself';
  when: 'before' | 'after';
}

/** Every point at which a process can die around a side effect, and around every activity that has none. */
export function everyPoint(): Point[] {
  return deeds.flatMap((deed) => {
    const effects = sideEffects[activityOfDeed(deed)];
    const around: (Effect | 'itself')[] = effects.length > 0 ? [...effects] : ['itself'];
    return around.flatMap((effect) => (['before', 'after'] as const).map((when) => ({ deed, effect, when })));
  });
}

export function nameOfPoint({ deed, effect, when }: Record<keyof Point, string>): string {
  return `${when} ${effect} in ${deed}`;
}
