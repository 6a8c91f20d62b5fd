/** What the activities of a failover need from the other parts, as small as it is used. */
import type { CellRecord } from '../blueprints/records';
import type { ConfigurationStore } from '../blueprints/store';
import type { TrafficClient } from '../envoy/traffic-client';

export type Store = Pick<
  ConfigurationStore,
  'service' | 'cell' | 'cells' | 'blueprint' | 'traffic' | 'updateCell' | 'saveDossier' | 'recordDecisions'
>;

export type Traffic = Pick<TrafficClient, 'applySplit' | 'armCell' | 'removeCell' | 'getTraffic'>;

/** What the Synthetic Cell Manager found out while warming a cell. */
export interface WarmUpFindings {
  warm: boolean;
  reasons: string[];
  entries: number;
  connections: number;
  /** Latencies beside those of the service's other cells, side by side; null without a probe or an answer. */
  probe: { p95Ms: number | null; peersP95Ms: number | null } | null;
}

/** The Synthetic Cell Manager. */
export interface SyntheticCells {
  acquire(
    request: { failover: string; source: string },
    heartbeat: (text: string) => void,
    signal: AbortSignal,
  ): Promise<{ cell: CellRecord; reused: boolean }>;
  warm(cell: CellRecord, heartbeat: (text: string) => void, signal: AbortSignal): Promise<WarmUpFindings>;
  rest(cell: CellRecord): Promise<unknown>;
  retire(cell: CellRecord): Promise<void>;
}

/** Who else is at work. */
export interface Failovers {
  /** How many other failovers of the service come before this one: under way, or waiting for longer. */
  ahead(service: string, failover: string): Promise<number>;
}

export interface Ports {
  store: Store;
  traffic: Traffic;
  cells: SyntheticCells;
  failovers: Failovers;
}
