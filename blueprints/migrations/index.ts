/** The migrations by name, in the order they run. A migration that has been released is never edited. */
import type { Migration } from 'kysely';
import * as store from './0001-store';
import * as decisionsAndLedger from './0020-decisions-and-ledger';
import * as audit from './0030-audit';
import * as replicas from './0031-replicas';
import * as openSteps from './0032-open-steps';
import * as changeRequests from './0033-change-requests';
import * as looks from './0040-looks';
import * as cellStarts from './0050-cell-starts';

export const migrations: Record<string, Migration> = {
  '0001-store': store,
  '0020-decisions-and-ledger': decisionsAndLedger,
  '0030-audit': audit,
  '0031-replicas': replicas,
  '0032-open-steps': openSteps,
  '0033-change-requests': changeRequests,
  '0040-looks': looks,
  '0050-cell-starts': cellStarts,
};
