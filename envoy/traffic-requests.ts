/** What a request of the traffic API must have before anything is asked of the store, each fault with its field. */
import { createHash } from 'node:crypto';
import type { RequestHashes } from '../blueprints/records';
import { BadRequestError, type FieldViolation } from './traffic-errors';
import type { WireShare } from './traffic-client';

export interface ChangeRequest {
  service: string;
  reason: string;
  by: string;
  idempotency_key: string;
  wait_ms: number;
  override: boolean;
}
export type ApplySplitRequest = ChangeRequest & {
  expected_epoch: number;
  split: WireShare[];
  lease_ms: number;
  release_lease: boolean;
};
export type CellRequest = ChangeRequest & { cell: string };
export type DrainRequest = CellRequest & { to: string };
export type RemoveRequest = CellRequest & { despite_measured: boolean };
export interface AwaitRequest {
  service: string;
  idempotency_key: string;
  wait_ms: number;
}
export interface OrderRequest {
  by: string;
  reason: string;
}

/**
 * What does not make a change another one: which it is, the words for it, and how long or despite what it is waited for.
 */
const notHashed = ['service', 'idempotency_key', 'reason', 'wait_ms', 'despite_measured'];

/**
 * The hash of each field that makes the request what it is; the order in which a split names its cells does not. What is
 * left out or zero is nothing said: so a field that a later version brings makes no other request of a repeated one.
 */
export function requestHashes(method: string, request: object): RequestHashes {
  const hashes: RequestHashes = { method: hashOf(method) };
  for (const [field, value] of Object.entries(request as Record<string, unknown>)) {
    if (value && !notHashed.includes(field)) hashes[field] = hashOf(value);
  }
  return hashes;
}

function hashOf(value: unknown): string {
  const text = Array.isArray(value) ? (value as unknown[]).map((part) => JSON.stringify(part)).sort() : value;
  return createHash('sha256').update(JSON.stringify(text)).digest('hex').slice(0, 16);
}

const longestWaitMs = 600_000;
const shortestLeaseMs = 1000;
const longestLeaseMs = 86_400_000;

/** A split of more is a mistake, and would keep the process busy with saying so. */
const mostShares = 1000;

/** Names and keys stand in an index of the store, which takes no more than some 2,700 bytes. */
const longestName = 500;
const longestReason = 4000;
const longest: Readonly<Record<string, number>> = { reason: longestReason };
const texts = ['service', 'cell', 'to', 'by', 'reason', 'idempotency_key'];

/** Keys that the control plane gives its own changes: a caller's of the same name would hide them. */
const ownKeys = /^(roll-back|lease-expired)\//;

export function refuse(violations: FieldViolation[]): void {
  if (violations.length > 0) throw new BadRequestError(violations);
}

/** These are there, and every text is one that the store can keep. */
export function required<T extends object>(request: T, ...fields: (keyof T & string)[]): FieldViolation[] {
  const missing = fields.filter((field) => request[field] === '').map((field) => ({ field, problem: 'is empty' }));
  return [...missing, ...unkeepable(request)];
}

export function changeViolations(request: ChangeRequest, ...more: string[]): FieldViolation[] {
  const violations = required(request, ...(['service', 'by', ...more] as (keyof ChangeRequest)[]));
  const { idempotency_key: key } = request;
  if (key === '') {
    const problem = 'is empty; give each change a key of its own and repeat it on a retry';
    violations.push({ field: 'idempotency_key', problem });
  } else if (ownKeys.test(key)) {
    const problem = "begins as the control plane's own keys do (roll-back/, lease-expired/); give it another name";
    violations.push({ field: 'idempotency_key', problem });
  }
  return [...violations, ...waitViolations(request)];
}

export function awaitViolations(request: AwaitRequest): FieldViolation[] {
  return [...required(request, 'service', 'idempotency_key'), ...waitViolations(request)];
}

function waitViolations({ wait_ms }: { wait_ms: number }): FieldViolation[] {
  if (wait_ms <= longestWaitMs) return [];
  return [{ field: 'wait_ms', problem: `must be at most ${longestWaitMs} ms, not ${wait_ms}` }];
}

export function cellViolations(request: CellRequest): FieldViolation[] {
  return changeViolations(request, 'cell');
}

export function splitRequestViolations(request: ApplySplitRequest): FieldViolation[] {
  const { split, lease_ms } = request;
  const violations = changeViolations(request);
  if (split.length === 0) violations.push({ field: 'split', problem: 'is empty; name the cells and their shares' });
  if (split.length > mostShares) {
    violations.push({ field: 'split', problem: `names ${split.length} cells; ${mostShares} are the most` });
  }
  if (lease_ms !== 0 && (lease_ms < shortestLeaseMs || lease_ms > longestLeaseMs)) {
    const problem = `must be 0 (no lease) or ${shortestLeaseMs} to ${longestLeaseMs} ms, not ${lease_ms}`;
    violations.push({ field: 'lease_ms', problem });
  }
  return violations;
}

function unkeepable(request: object): FieldViolation[] {
  return Object.entries(request).flatMap(([field, text]: [string, unknown]) => {
    if (!texts.includes(field) || typeof text !== 'string') return [];
    const most = longest[field] ?? longestName;
    if (text.length > most) return [{ field, problem: `has ${text.length} characters; ${most} are the most` }];
    return text.includes('\0') ? [{ field, problem: 'has a zero character, which cannot be stored' }] : [];
  });
}
