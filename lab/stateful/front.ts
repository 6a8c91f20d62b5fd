/**
 * The HTTP side that both stateful reference services share. Any cell takes any request: what only the owner may answer
 * is handed on to it, once; while nobody owns the data the caller waits for a moment.
 *
 *   POST /append/<list>    {"value"}            200 once it is kept, for ever and in its place; repeating it changes nothing
 *   GET  /append/<list>                         200 {"values"}: everything that was answered before this was asked
 *   PUT  /register/<name>  {"version", "value"} 200 once it, or a later version, is kept
 *   GET  /register/<name>                       200 {"version", "value"}: nothing older than what was answered before
 *   GET  ...?stale=allowed                      200 from what this cell has: maybe old, never wrong
 *
 * 421: surely not done. 503, or no answer: maybe done.
 */
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { request } from '../../cells/http';
import type { Change, RegisterState } from './register-state';

export type Operation = { kind: 'change'; change: Change } | { kind: 'read' };

/** Surely nothing was done: this cell is not the owner. */
export class NotOwnerError extends Error {
  override readonly name = 'NotOwnerError';
}

/** Asked to do what it must not do. */
export class RefusedOrderError extends Error {
  override readonly name = 'RefusedOrderError';
}

/** What stands behind the front: the changelog or Postgres. */
export interface Core {
  /** Resolves when it is done for good, or, for a read, when what can then be read is current. NotOwnerError: surely not done. */
  run(operation: Operation): Promise<RegisterState>;
  /** What this cell has, current or not. */
  readonly state: RegisterState | (() => Promise<RegisterState>);
  /** Where the owner can be reached; undefined if it is this cell, or if nobody knows. */
  owner(): { address: string; port: number } | undefined;
  dataState(): unknown;
  order(what: string, body: { epoch: number; owner?: string }): Promise<void>;
  isReady(): boolean;
}

const forwardTimeoutMs = 2_000;
/** How long a caller is kept waiting while nobody owns the data; a handover takes a second or two. */
const ownerWithinMs = 2_000;
const ownerLookEveryMs = 50;
const forwarded = 'x-understudy-forwarded';

/** `before` is shown every request first; true: it has answered it. */
export function serve(
  core: Core,
  address: string,
  port: number,
  before: (req: IncomingMessage, res: ServerResponse) => boolean = () => false,
): Promise<http.Server> {
  const server = http.createServer((req, res) => {
    if (before(req, res)) return;
    answer(core, req, res).catch((error: unknown) => {
      const status = error instanceof NotOwnerError ? 421 : error instanceof RefusedOrderError ? 409 : 503;
      say(res, status, { error: (error as Error).message });
    });
  });
  server.keepAliveTimeout = 30_000;
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, address, () => resolve(server));
  });
}

async function answer(core: Core, req: IncomingMessage, res: ServerResponse): Promise<void> {
  const { pathname, searchParams } = new URL(req.url ?? '/', 'http://cell');
  const [, what = '', name = ''] = pathname.split('/').map(decodeURIComponent);
  const body = req.method === 'GET' ? {} : await readBody(req);
  if (what === 'healthz') return say(res, core.isReady() ? 200 : 503, {});
  if (what === 'data-sync') {
    if (name !== '')
      await core.order(name, {
        epoch: Number(body['epoch']),
        ...(typeof body['owner'] === 'string' && { owner: body['owner'] }),
      });
    return say(res, 200, await core.dataState());
  }
  const operation = operationOf(req.method ?? 'GET', what, name, body);
  if (!operation) return say(res, 404, {});
  if (operation.kind === 'read' && searchParams.get('stale') === 'allowed') {
    const state = typeof core.state === 'function' ? await core.state() : core.state;
    return say(res, 200, read(state, what, name));
  }
  // Handed on by a cell that keeps the caller waiting itself.
  const waitMs = req.headers[forwarded] === undefined ? ownerWithinMs : 0;
  for (const deadline = Date.now() + waitMs; ; await sleep(ownerLookEveryMs)) {
    try {
      const owner = waitMs > 0 ? core.owner() : undefined;
      if (owner) return await forward(owner, req, res, body);
      const state = await core.run(operation);
      return say(res, 200, operation.kind === 'read' ? read(state, what, name) : {});
    } catch (error) {
      // Surely not done, so it may be tried again: in a handover the next owner is there in a moment.
      if (!(error instanceof NotOwnerError) || Date.now() > deadline) throw error;
    }
  }
}

function operationOf(method: string, what: string, name: string, body: Record<string, unknown>): Operation | undefined {
  if (name === '' || (what !== 'append' && what !== 'register')) return undefined;
  if (method === 'GET') return { kind: 'read' };
  const value = String(body['value']);
  if (what === 'append') return { kind: 'change', change: { kind: 'append', list: name, value } };
  return { kind: 'change', change: { kind: 'set', register: name, version: Number(body['version']), value } };
}

function read(state: RegisterState, what: string, name: string): unknown {
  return what === 'append' ? { values: state.list(name) } : state.register(name);
}

/** One hop only: two cells that take each other for the owner must not play ball. NotOwnerError: surely not done. */
async function forward(
  owner: { address: string; port: number },
  req: IncomingMessage,
  res: ServerResponse,
  body: unknown,
): Promise<void> {
  const method = req.method as 'GET' | 'POST' | 'PUT';
  const call = method === 'GET' ? { method } : { method, body };
  const headers = { [forwarded]: '1' };
  const { status, body: text } = await request(owner, req.url ?? '/', {
    ...call,
    headers,
    timeoutMs: forwardTimeoutMs,
  }).catch((error: NodeJS.ErrnoException) => {
    throw error.code === 'ECONNREFUSED' ? new NotOwnerError(`the owner is gone: ${error.message}`) : error;
  });
  if (status === 421) throw new NotOwnerError(text);
  res.writeHead(status, { 'content-type': 'application/json' }).end(text);
}

async function readBody(req: IncomingMessage): Promise<Record<string, unknown>> {
  let text = '';
  for await (const chunk of req) text += String(chunk);
  return text === '' ? {} : (JSON.parse(text) as Record<string, unknown>);
}

function say(res: ServerResponse, status: number, body: unknown): void {
  if (res.headersSent) return;
  res.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}
