/**
 * Who may call which method of the traffic API for which service. Stands before every method there is or will be, so
 * that a new one is closed until the settings open it, and says each change that was asked for to the audit.
 */
import {
  ResponderBuilder,
  ServerInterceptingCall,
  ServerListenerBuilder,
  status,
  type Metadata,
  type ServerInterceptor,
} from '@grpc/grpc-js';
import type { Logger } from 'pino';
import { automaticMethods, type Principal } from '../../blueprints/control-plane-settings';
import { identitiesOf, matchesAny, matchPattern } from './identity';

export interface Caller {
  /** As the certificate says; empty on a plaintext port. */
  identity: string;
  /** What the settings say of that identity. On a plaintext port nobody is known: `unknown`. */
  kind: 'automatic' | 'person' | 'unknown';
}

/** Metadata by which the caller, as authenticated, is told to the methods. What a client sends under them is removed. */
export const callerMetadata = { identity: 'understudy-identity', kind: 'understudy-caller' } as const;

/** Who the interceptor found the caller to be. */
export function callerOf(metadata: Metadata): Caller {
  const read = (key: string): string => metadata.get(key)[0]?.toString() ?? '';
  return {
    identity: read(callerMetadata.identity),
    kind: (read(callerMetadata.kind) || 'unknown') as Caller['kind'],
  };
}

/** One call that would change something, when it has been answered. */
export interface AskedChange extends Caller {
  method: string;
  service: string | null;
  by: string | null;
  reason: string | null;
  idempotencyKey: string | null;
  /** Name of the gRPC status: `OK`, `PERMISSION_DENIED` and so on. */
  outcome: string;
  details: string;
}

export interface TrafficAuthorityOptions {
  /** Undefined on a plaintext port: everybody may do everything. */
  principals: readonly Principal[] | undefined;
  log: Logger;
  /** Told of every change that was asked for, refused ones included. Must not throw. */
  asked?: (change: AskedChange) => void;
}

/** What of a request says for which service, by whom and why, whichever method it is of. */
interface ChangeWords {
  service?: unknown;
  by?: unknown;
  reason?: unknown;
  idempotency_key?: unknown;
  override?: unknown;
}

/** Health and reflection tell nothing that is anybody's: open to every certificate that our authorities signed. */
const openServices = /^grpc\.(health|reflection)\./;
/** These change nothing and so are no matter for the audit. */
const reading = /^(Get|List|Watch)/;

export function trafficAuthority(options: TrafficAuthorityOptions): ServerInterceptor {
  const { principals, log, asked } = options;
  return (method, call) => {
    const [, grpcService = '', name = ''] = method.path.split('/');
    const isOpen = openServices.test(grpcService);
    let caller: Caller = { identity: '', kind: 'unknown' };
    let mine: Principal[] | undefined;
    let words: ChangeWords | undefined;
    let refusal: string | undefined;
    const text = (value: unknown): string | null => (typeof value === 'string' && value !== '' ? value : null);

    const judge = (request: ChangeWords): string | undefined => {
      if (!principals || isOpen) return undefined;
      return refusalOf(caller, mine ?? [], name, text(request.service), request.override === true);
    };
    const deny = (why: string): void => {
      refusal = why;
      log.warn({ ...caller, method: name, service: text(words?.service), peer: call.getPeer() }, `refused: ${why}`);
      intercepting.sendStatus({ code: status.PERMISSION_DENIED, details: why });
    };
    const listener = new ServerListenerBuilder()
      .withOnReceiveMetadata((metadata, next) => {
        for (const key of Object.values(callerMetadata)) metadata.remove(key);
        if (principals) {
          const known = knownCaller(principals, identitiesOf(intercepting));
          ({ caller, mine } = known);
          metadata.set(callerMetadata.identity, caller.identity);
          metadata.set(callerMetadata.kind, caller.kind);
        }
        next(metadata);
      })
      .withOnReceiveMessage((message: ChangeWords, next) => {
        if (refusal !== undefined) return;
        words ??= message;
        const why = judge(message);
        if (why === undefined) next(message);
        else deny(why);
      })
      // A method that was given no request would answer for itself.
      .withOnReceiveHalfClose((next) => {
        if (refusal === undefined) next();
      })
      .build();
    const responder = new ResponderBuilder()
      .withStart((next) => next(listener))
      .withSendStatus((answer, next) => {
        if (!isOpen && (!reading.test(name) || refusal !== undefined)) {
          asked?.({
            ...caller,
            method: name,
            service: text(words?.service),
            by: text(words?.by),
            reason: text(words?.reason),
            idempotencyKey: text(words?.idempotency_key),
            outcome: status[answer.code ?? status.UNKNOWN],
            details: answer.code === status.OK ? '' : (answer.details ?? ''),
          });
        }
        next(answer);
      })
      .build();
    const intercepting = new ServerInterceptingCall(call, responder);
    return intercepting;
  };
}

/** The first of the certificate's names that settings know, and all that they say of it. */
function knownCaller(principals: readonly Principal[], claimed: string[]): { caller: Caller; mine: Principal[] } {
  for (const identity of claimed) {
    const mine = principals.filter((principal) => matchPattern(principal.identity, identity));
    if (mine.length === 0) continue;
    const kind = mine.some((principal) => principal.kind === 'person') ? 'person' : 'automatic';
    return { caller: { identity, kind }, mine };
  }
  return { caller: { identity: claimed[0] ?? '', kind: 'unknown' }, mine: [] };
}

/** Why this caller may not do this; undefined if it may. */
function refusalOf(
  { identity }: Caller,
  mine: readonly Principal[],
  method: string,
  service: string | null,
  isOverride: boolean,
): string | undefined {
  const who = identity || 'a caller without a SPIFFE id or DNS name in its certificate';
  const where = 'see controlPlane.principals in the settings';
  if (mine.length === 0) return `${who} is nobody to the traffic API; ${where}`;
  const granted = mine.filter((principal) => {
    const methods = principal.methods ?? (principal.kind === 'person' ? ['**'] : automaticMethods);
    // What names no service concerns all of them.
    return (
      matchesAny(methods, method) &&
      (service === null ? principal.services.includes('**') : matchesAny(principal.services, service))
    );
  });
  if (granted.length === 0)
    return `${who} may not call ${method} for ${service === null ? 'all services' : `service ${service}`}; ${where}`;
  if (isOverride && !granted.some((principal) => principal.kind === 'person'))
    return `${who} is automatic and may not override a stop that a person ordered; ${where}`;
  return undefined;
}
