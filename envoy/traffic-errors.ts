/** What can go wrong with a traffic request, and the gRPC status each becomes: code, readable message, field, trailers. */
import { Metadata, status } from '@grpc/grpc-js';
import { Root } from 'protobufjs';
import {
  FleetStoppedError,
  LeaseHeldError,
  LeaseLostError,
  RefusedError,
  StaleEpochError,
  type FleetStop,
} from '../blueprints/records';
import { errorTrailers } from './traffic-client';

export interface FieldViolation {
  /** As named on the wire, such as `split[0].share_bp`. */
  field: string;
  problem: string;
}

/** Trailers hold a few kilobytes: a status that does not fit reaches nobody. */
const mostViolations = 10;
const longestProblem = 200;
const longestDetails = 1500;

/** The request itself cannot be; each violation names its field. */
export class BadRequestError extends RefusedError {
  constructor(readonly violations: FieldViolation[]) {
    const told = violations.slice(0, mostViolations).map(({ field, problem }) => `${field}: ${problem}`);
    if (violations.length > mostViolations) told.push(`and ${violations.length - mostViolations} more`);
    super(told.join('; '));
  }
}

/** The request is well formed but the present state does not allow it. */
export class PreconditionError extends RefusedError {}
export class UnknownServiceError extends RefusedError {}

/** The idempotency key was used for another request; `fields` are those in which the two differ. */
export class KeyReusedError extends RefusedError {
  readonly fields: string[];
  constructor(key: string, epoch: number, fields: string[]) {
    super(
      `idempotency_key: ${key} was used for another request, which made epoch ${epoch}; other then: ${fields.join(', ')}`,
    );
    this.fields = fields;
  }
}

/** No change was made under that key, of that service. */
export class UnknownChangeError extends RefusedError {}

/** The change is made, and cannot be brought to the proxies as long as the service is as it is. */
export class UnpublishedError extends Error {
  override readonly name = 'UnpublishedError';
}

/** So many calls wait for proxies that another one is not taken. */
export class TooManyWaitsError extends Error {
  override readonly name = 'TooManyWaitsError';
}

/** Nobody waits for the answer any more, so nothing was begun. */
export class CallerLeftError extends Error {
  override readonly name = 'CallerLeftError';
}

/** This control plane is being stopped. */
export class StoppingError extends Error {
  override readonly name = 'StoppingError';
}

/** Load reports show that the cell carries traffic, or do not show that it does not. Later they may. */
export class StillCarryingError extends Error {
  override readonly name = 'StillCarryingError';
}

/** Postgres does not answer, or has not answered for this change. */
export class StoreUnavailableError extends Error {
  override readonly name = 'StoreUnavailableError';
}

export class OutOfRangeError extends RefusedError {}

export interface Status {
  code: status;
  details: string;
  metadata: Metadata;
}

/** The store has answered, with a no: asked again it says the same. */
export function isForeseen(error: unknown): boolean {
  return error instanceof RefusedError || error instanceof StaleEpochError || error instanceof FleetStoppedError;
}

/** Undefined for what is nobody's fault: unforeseen. */
export function statusOf(error: Error): Status | undefined {
  const metadata = new Metadata();
  const kind = (name: string): void => metadata.set(errorTrailers.kind, name);
  const as = (code: status): Status => ({ code, details: cut(error.message, longestDetails), metadata });
  if (error instanceof StaleEpochError) {
    kind('stale-epoch');
    metadata.set(errorTrailers.expected, String(error.expected));
    metadata.set(errorTrailers.actual, String(error.actual));
    return as(status.FAILED_PRECONDITION);
  }
  if (error instanceof FleetStoppedError) {
    kind('stopped');
    metadata.set(errorTrailers.stop, asciiJson(shortStop(error.stop)));
    return as(status.FAILED_PRECONDITION);
  }
  if (error instanceof StillCarryingError) {
    kind('still-carrying');
    return as(status.FAILED_PRECONDITION);
  }
  if (error instanceof LeaseLostError) {
    kind('lease-lost');
    return as(status.FAILED_PRECONDITION);
  }
  if (error instanceof LeaseHeldError) {
    kind('leased');
    return as(status.FAILED_PRECONDITION);
  }
  if (error instanceof KeyReusedError) {
    kind('key-reused');
    const differs = (field: string): FieldViolation => ({ field, problem: 'is another than under this key before' });
    metadata.set(
      'grpc-status-details-bin',
      badRequestDetails(error.message, ['idempotency_key', ...error.fields].map(differs), status.ALREADY_EXISTS),
    );
    return as(status.ALREADY_EXISTS);
  }
  if (error instanceof UnpublishedError) {
    kind('unpublished');
    return as(status.UNAVAILABLE);
  }
  if (error instanceof TooManyWaitsError) return as(status.RESOURCE_EXHAUSTED);
  if (error instanceof CallerLeftError) return as(status.CANCELLED);
  if (error instanceof StoppingError) return as(status.UNAVAILABLE);
  if (error instanceof BadRequestError) {
    metadata.set('grpc-status-details-bin', badRequestDetails(error.message, error.violations));
    return as(status.INVALID_ARGUMENT);
  }
  if (error instanceof UnknownServiceError || error instanceof UnknownChangeError) return as(status.NOT_FOUND);
  if (error instanceof OutOfRangeError) return as(status.OUT_OF_RANGE);
  if (error instanceof PreconditionError) return as(status.FAILED_PRECONDITION);
  if (error instanceof RefusedError) return as(status.INVALID_ARGUMENT);
  if (error instanceof StoreUnavailableError) return as(status.UNAVAILABLE);
  return undefined;
}

function cut(text: string, most: number): string {
  return text.length <= most ? text : `${text.slice(0, most).replace(/[\ud800-\udbff]$/, '')}…`;
}

function shortStop({ by, reason, since }: FleetStop): FleetStop {
  return { by: cut(by, longestProblem), reason: cut(reason, longestProblem), since };
}

/** Trailers take printable ASCII only and throw at anything else; a reason is in whatever language people speak. */
function asciiJson(value: object): string {
  return JSON.stringify(value).replace(
    /[^ -~]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

// google/rpc/status.proto and error_details.proto, as far as they are used.
const rpc = Root.fromJSON({
  nested: {
    Status: {
      fields: {
        code: { type: 'int32', id: 1 },
        message: { type: 'string', id: 2 },
        details: { rule: 'repeated', type: 'Any', id: 3 },
      },
    },
    Any: { fields: { type_url: { type: 'string', id: 1 }, value: { type: 'bytes', id: 2 } } },
    BadRequest: {
      fields: { field_violations: { rule: 'repeated', type: 'FieldViolation', id: 1 } },
    },
    FieldViolation: { fields: { field: { type: 'string', id: 1 }, description: { type: 'string', id: 2 } } },
  },
});
const rpcStatus = rpc.lookupType('Status');
const badRequest = rpc.lookupType('BadRequest');
const badRequestUrl = 'type.googleapis.com/google.rpc.BadRequest';

function badRequestDetails(text: string, violations: FieldViolation[], code = status.INVALID_ARGUMENT): Buffer {
  const field_violations = violations
    .slice(0, mostViolations)
    .map(({ field, problem }) => ({ field, description: cut(problem, longestProblem) }));
  const value = badRequest.encode(badRequest.fromObject({ field_violations })).finish();
  const details = [{ type_url: badRequestUrl, value }];
  const message = { code, message: cut(text, longestProblem), details };
  return Buffer.from(rpcStatus.encode(rpcStatus.fromObject(message)).finish());
}

/** The fields that a server's `grpc-status-details-bin` names; none if it names none. */
export function readFieldViolations(details: Buffer): FieldViolation[] {
  const { details: anys } = rpcStatus.toObject(rpcStatus.decode(details)) as {
    details?: { type_url: string; value: Uint8Array }[];
  };
  const found = anys?.find(({ type_url }) => type_url === badRequestUrl);
  if (!found) return [];
  const { field_violations } = badRequest.toObject(badRequest.decode(found.value)) as {
    field_violations?: { field: string; description: string }[];
  };
  return (field_violations ?? []).map(({ field, description }) => ({ field, problem: description }));
}
