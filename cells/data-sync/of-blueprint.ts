/** From what a blueprint says about its data to the port that does it. */
import { readFileSync } from 'node:fs';
import type { DataSyncDocument } from '../../blueprints/schema';
import type { TlsOf } from './contract';
import type { DataSync } from './data-sync';
import { KafkaChangelog } from './kafka-changelog';
import { PostgresReplica } from './postgres';

/** Null where a cell keeps no data that another could miss. The caller closes what it gets. */
export function dataSyncOf(document: DataSyncDocument, tlsOf?: TlsOf): DataSync | null {
  switch (document.kind) {
    case 'none':
      return null;
    case 'kafka-changelog': {
      const { brokers, topic, path, maxLagRecords, maxLagS } = document;
      return new KafkaChangelog({ tlsOf, brokers, topic, path, limit: { behind: maxLagRecords, seconds: maxLagS } });
    }
    case 'postgres': {
      const { user, database, passwordFile, path, maxLagBytes, maxLagS } = document;
      const password = encodeURIComponent(readFileSync(passwordFile, 'utf8').trim());
      const url = `postgres://${encodeURIComponent(user)}:${password}@cell/${encodeURIComponent(database)}`;
      return new PostgresReplica({ tlsOf, url, path, limit: { behind: maxLagBytes, seconds: maxLagS } });
    }
  }
}
