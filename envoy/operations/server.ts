/**
 * The control plane over HTTP, for machines and people that look after it: `/livez`, `/readyz`, `/metrics` for whoever
 * reaches the port, `/proxies` and `/config_dump` for those who prove who they are.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Logger } from 'pino';
import type { OperationsSettings } from '../../blueprints/control-plane-settings';
import { splitAddress } from '../bootstrap';
import { secureContext } from '../security/credentials';
import { identitiesIn, matchesAny } from '../security/identity';
import { WatchedTls } from '../security/watched-tls';
import type { Readiness } from './readiness';

export interface OperationsOptions {
  settings: OperationsSettings;
  log: Logger;
  readiness: () => Readiness;
  metrics: () => Promise<string>;
  proxies: () => unknown;
  configDump: () => unknown;
  /** Processes that share the settings: each takes a port of its own, the first free one from that of the settings. */
  processes?: number;
}

export interface Operations {
  /** As bound: host:port. */
  address: string;
  tls: WatchedTls | undefined;
  close(): Promise<void>;
}

interface Answer {
  status: number;
  type: string;
  body: string;
}

const json = (status: number, value: unknown): Answer => ({
  status,
  type: 'application/json',
  body: `${JSON.stringify(value, null, 2)}\n`,
});

export async function startOperations(options: OperationsOptions): Promise<Operations> {
  const { settings, log } = options;
  const tls = settings.tls && new WatchedTls(settings.tls, { what: 'operations port', log });
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    answer(options, request).then(
      ({ status, type, body }) => {
        response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
        response.end(request.method === 'HEAD' ? '' : body);
      },
      (error: Error) => {
        log.error({ err: error, path: request.url }, `${request.url} could not be answered: ${error.message}`);
        response.writeHead(500, { 'content-type': 'text/plain' });
        response.end('internal error; see the log\n');
      },
    );
  };
  const server = tls ? tlsServer(tls, listener) : createServer(listener);
  const { host, port } = splitAddress(settings.address);
  for (let n = 0; ; n += 1) {
    const isLast = n + 1 >= (options.processes ?? 1) || port === 0;
    const error = await listen(server, host, port === 0 ? 0 : port + n);
    if (!error) break;
    if (isLast || error.code !== 'EADDRINUSE') {
      tls?.close();
      throw new Error(`operations address ${settings.address} cannot be listened on: ${error.message}`);
    }
  }
  const bound = server.address() as AddressInfo;
  return {
    address: `${host.includes(':') ? `[${host}]` : host}:${bound.port}`,
    tls,
    close: () => {
      tls?.close();
      return closeServer(server);
    },
  };
}

/** Answers the error if that port cannot be had. */
function listen(server: Server | TlsServer, host: string, port: number): Promise<NodeJS.ErrnoException | undefined> {
  return new Promise((resolve) => {
    server.once('error', resolve);
    // Exclusive: processes that share the other ports are to be asked each for itself.
    server.listen({ port, host, exclusive: true }, () => {
      server.removeListener('error', resolve);
      resolve(undefined);
    });
  });
}

/** Probes and scrapes need no certificate; who shows one is known by it. */
function tlsServer(tls: WatchedTls, listener: (request: IncomingMessage, response: ServerResponse) => void): TlsServer {
  const server = createTlsServer(
    { ...secureContext(tls.current), requestCert: true, rejectUnauthorized: false },
    listener,
  );
  tls.onChange((material) => server.setSecureContext(secureContext(material)));
  return server;
}

async function answer(options: OperationsOptions, request: IncomingMessage): Promise<Answer> {
  if (request.method !== 'GET' && request.method !== 'HEAD')
    return { status: 405, type: 'text/plain', body: 'only GET\n' };
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://operations');
  switch (pathname) {
    case '/livez':
      return { status: 200, type: 'text/plain', body: 'live\n' };
    case '/readyz': {
      const state = options.readiness();
      const isUnready = state.status === 'not ready' || (state.status === 'degraded' && searchParams.has('strict'));
      return json(isUnready ? 503 : 200, state);
    }
    case '/metrics':
      return { status: 200, type: 'text/plain; version=0.0.4; charset=utf-8', body: await options.metrics() };
    case '/proxies':
    case '/config_dump': {
      const refusal = await refusalOf(options.settings, request);
      if (refusal) {
        const from = request.socket.remoteAddress;
        options.log.warn({ path: pathname, from }, `${pathname} was refused to ${from}: ${refusal}`);
        return { status: 401, type: 'text/plain', body: `${refusal}\n` };
      }
      return json(200, pathname === '/proxies' ? options.proxies() : options.configDump());
    }
    default:
      return { status: 404, type: 'text/plain', body: 'there are /livez /readyz /metrics /proxies /config_dump\n' };
  }
}

/** Why this caller is not shown what the control plane holds; undefined if it may see it. */
async function refusalOf(settings: OperationsSettings, request: IncomingMessage): Promise<string | undefined> {
  const socket = request.socket as TLSSocket;
  if (socket.authorized) {
    const identities = identitiesIn(socket.getPeerCertificate().subjectaltname ?? '');
    if (identities.some((identity) => matchesAny(settings.operators, identity))) return undefined;
  }
  const given = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1];
  if (given === undefined) return 'a bearer token or the certificate of an operator is needed';
  if (settings.tokenFile === undefined) return 'no tokenFile is set, so no bearer token is accepted';
  // Read each time: a token is replaced by replacing its file.
  const token = (await readFile(settings.tokenFile, 'utf8').catch(() => '')).trim();
  if (token === '') return 'the tokenFile cannot be read or is empty, so no bearer token is accepted';
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(given), digest(token)) ? undefined : 'the bearer token is not the right one';
}

function closeServer(server: Server | TlsServer): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
