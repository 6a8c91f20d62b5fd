/** From what a blueprint says about its data to the port that does it. */
import type { DataSyncDocument } from '../../blueprints/schema';
import type { DataSync } from './data-sync';
import { KafkaChangelog } from './kafka-changelog';

/** Null where a cell keeps no data that another could miss. The caller closes what it gets. */
export function dataSyncOf(document: DataSyncDocument): DataSync | null {
  switch (document.kind) {
    case 'none':
      return null;
    case 'kafka-changelog': {
      const { brokers, topic, path, maxLagRecords, maxLagS } = document;
      return new KafkaChangelog({ brokers, topic, path, limit: { behind: maxLagRecords, seconds: maxLagS } });
    }
  }
}
