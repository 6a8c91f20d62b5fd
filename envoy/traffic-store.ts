/** What the load balancer needs of the Configuration Data Store. ConfigurationStore has this shape. */
import type {
  AppliedChange,
  BlueprintVersion,
  CellRecord,
  ServiceRecord,
  TrafficChange,
  TrafficState,
} from '../blueprints/records';

export interface TrafficStore {
  services(): Promise<ServiceRecord[]>;
  cells(service?: string): Promise<CellRecord[]>;
  blueprint(name: string, version: number): Promise<BlueprintVersion | undefined>;
  traffic(service: string): Promise<TrafficState | undefined>;
  /** Compares and swaps the epoch. Throws StaleEpochError; RefusedError for what it cannot accept. */
  changeTraffic(change: TrafficChange): Promise<AppliedChange>;
  /** Calls the listener when a service's configuration has changed, null when any may have. Answers how to stop. */
  onChange(listener: (service: string | null) => void): () => void;
}
