/** What the activities of a failover need from the other parts, as small as it is used. */
import type { CellRecord } from '../blueprints/records';
import type { ConfigurationStore } from '../blueprints/store';
import type { DataGate } from '../cells/data-sync/data-gate';
import type { ProtectionReport } from '../cells/protection/read-back';
import type { Reached } from '../cells/http';
import type { ReadTraffic } from '../cells/warm-up/service-traffic';
import type { StepEvidence } from '../cells/warm-up/step';
import type { TrafficClient } from '../envoy/traffic-client';

export type Store = Pick<
  ConfigurationStore,
  | 'service'
  | 'cell'
  | 'cells'
  | 'blueprint'
  | 'traffic'
  | 'updateCell'
  | 'saveDossier'
  | 'recordDecisions'
  | 'pastFailovers'
  | 'blueprintAgeMs'
> & {
  /** The fleet-wide stop, if it is in force. */
  fleetStop?(): Promise<{ by: string; reason: string } | undefined>;
};

export type Traffic = Pick<TrafficClient, 'applySplit' | 'awaitChange' | 'armCell' | 'removeCell' | 'getTraffic'>;

/** What the Synthetic Cell Manager found out while warming a cell. */
export interface WarmUpFindings {
  warm: boolean;
  reasons: string[];
  entries: number;
  connections: number;
  /** Latencies beside those of the service's other cells, side by side; null without a probe or an answer. */
  probe: { p95Ms: number | null; peersP95Ms: number | null } | null;
  /** What each step of the plan measured, in order. */
  steps: StepEvidence[];
  /** What is in force around the cell, against its source or its blueprint. */
  protection?: ProtectionReport;
  /** Where the source has drifted from its blueprint. */
  drift?: string[];
}

/** The Synthetic Cell Manager. */
export interface SyntheticCells {
  acquire(
    request: { failover: string; source: string },
    heartbeat: (text: string) => void,
    signal: AbortSignal,
  ): Promise<{ cell: CellRecord; reused: boolean }>;
  /** `readTraffic`: what proxies report of the service while it lasts. */
  warm(
    cell: CellRecord,
    heartbeat: (text: string) => void,
    signal: AbortSignal,
    readTraffic: ReadTraffic,
  ): Promise<WarmUpFindings>;
  /** The cell's instances and how they are spoken to; left out: as they are recorded. */
  reached?(cell: CellRecord): Promise<Reached[]>;
  /** Answers the cell as it lies now. */
  rest(cell: CellRecord): Promise<Pick<CellRecord, 'rest'> | void>;
  retire(cell: CellRecord): Promise<void>;
}

/** What a cell's data has to say before the cell is used or ended. */
export type DataGates = Pick<DataGate, 'warm' | 'beforeMove' | 'beforeEnd' | 'keepFollowing' | 'excuse'>;

/** A cell that a failover is open for, and not yet ended. */
export interface Predicted {
  cell: string;
  sinceMs: number;
  /** Something has been made or moved for it. */
  isActive: boolean;
  metric: string | null;
  model: string | null;
}

/** Who else is at work. */
export interface Failovers {
  /** Of all services. */
  predicted(): Promise<Predicted[]>;
  /** How many other failovers of the service come before this one: under way, or waiting for longer. */
  ahead(service: string, failover: string): Promise<number>;
}

export interface Ports {
  store: Store;
  traffic: Traffic;
  cells: SyntheticCells;
  failovers: Failovers;
  /** Left out: no service keeps data. */
  data?: DataGates;
}
