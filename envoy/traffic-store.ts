/** What the load balancer needs of the Configuration Data Store. ConfigurationStore has this shape. */
import type {
  AppliedChange,
  BlueprintVersion,
  CellRecord,
  FleetStop,
  ServiceRecord,
  SplitLease,
  TrafficChange,
  TrafficState,
} from '../blueprints/records';
import type { OpenSteps } from '../blueprints/open-steps';
import type { ReplicaTable } from '../blueprints/replicas';
import type { SplitChange } from '../blueprints/store';

type Unlisten = () => void;

export interface TrafficStore {
  services(): Promise<ServiceRecord[]>;
  cells(service?: string): Promise<CellRecord[]>;
  blueprint(name: string, version: number): Promise<BlueprintVersion | undefined>;
  traffic(service: string): Promise<TrafficState | undefined>;
  /** Compares and swaps the epoch. Throws StaleEpochError, FleetStoppedError; RefusedError for what it cannot accept. */
  changeTraffic(change: TrafficChange): Promise<AppliedChange>;
  /** What a change with this key made before; undefined if there was none. */
  appliedChange(service: string, idempotencyKey: string): Promise<AppliedChange | undefined>;
  /** The newest first; with `afterEpoch` those that are newer, the oldest of them first. */
  splitChanges(service: string, limit?: number, afterEpoch?: number): Promise<SplitChange[]>;
  /** Calls the listener when a service's configuration has changed, null when any may have. Answers how to stop. */
  onChange(listener: (service: string | null) => void): Unlisten;
  fleetStop(): Promise<FleetStop | undefined>;
  stopFleet(by: string, reason: string): Promise<FleetStop>;
  resumeFleet(by: string, reason: string): Promise<FleetStop | undefined>;
  splitLease(service: string): Promise<SplitLease | undefined>;
  renewLease(service: string, holder: string): Promise<SplitLease>;
  expiredLeases(): Promise<SplitLease[]>;
  /** Left out, with `onHoldings`, by a store that only one process can see: there is no other replica then. */
  readonly replicas?: ReplicaTable;
  /** Left out likewise: what this process began ends with it. */
  readonly steps?: Pick<OpenSteps, 'list' | 'adopt' | 'close'>;
  onHoldings?(listener: (service: string | null) => void): Unlisten;
}
