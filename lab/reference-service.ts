/**
 * The lab's reference service: an item catalogue over HTTP with a real capacity limit, a real memory leak on demand and
 * real telemetry. Run as `node --max-old-space-size=64 dist/lab/reference-service.js --port 8080 --cell a --instance a-1`.
 */
import { createServer, request, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { numberFlag, readFlags } from './arguments';
import { Catalogue, type Item } from './catalogue';
import { HeapLeak, leakShapes, type LeakShape } from './heap-leak';
import type { ServiceTelemetry } from './service-telemetry';
import { WorkerSlots } from './worker-slots';

const flags = readFlags({
  port: 'string',
  address: 'string',
  service: 'string',
  cell: 'string',
  instance: 'string',
  kafka: 'string',
  'step-ms': 'string',
  'otlp-encoding': 'string',
  preloaded: 'boolean',
  items: 'string',
  slots: 'string',
  'service-ms': 'string',
  'cold-ms': 'string',
});

const port = numberFlag('port', flags.port, 0);
const address = flags.address ?? '127.0.0.1';
const cell = flags.cell ?? 'cell';
const instance = flags.instance ?? `${cell}-1`;
/** Two slots of 40 ms: an instance carries 50 requests per second and costs next to no CPU. */
const slots = new WorkerSlots(numberFlag('slots', flags.slots, 2));
const serviceMs = numberFlag('service-ms', flags['service-ms'], 40);
/** Extra wait, holding the slot, for an item that is not in memory: an instance that was not warmed is really slow. */
const coldMs = numberFlag('cold-ms', flags['cold-ms'], 150);
const catalogue = new Catalogue(numberFlag('items', flags.items, 2000));
const leak = new HeapLeak();
const longestPeerAnswerMs = 10_000;
const mostBytesFromPeer = 64 * 1024 * 1024;
const longestDrainMs = 4000;

let telemetry: ServiceTelemetry | undefined;
let draining = false;

function answer(response: ServerResponse, status: number, body: unknown): void {
  if (response.destroyed) return;
  if (draining) response.setHeader('connection', 'close');
  const text = JSON.stringify(body);
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) });
  response.end(text);
}

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function readItem(path: string, response: ServerResponse): Promise<number> {
  const id = Number(path.slice('/items/'.length));
  if (!catalogue.knows(id)) {
    answer(response, 404, { error: `No item ${path.slice('/items/'.length)}; ids are 0 to ${catalogue.size - 1}.` });
    return 404;
  }
  // A caller that has given up while queued must not take a slot: it would only delay those who still wait.
  if (!(await slots.enter(() => !response.destroyed))) return 499;
  try {
    await wait(serviceMs + (catalogue.isInMemory(id) ? 0 : coldMs));
    leak.onRequest();
    answer(response, 200, catalogue.read(id));
    return 200;
  } finally {
    slots.leave();
  }
}

function serveItem(path: string, response: ServerResponse): void {
  const beganAt = performance.now();
  const known = telemetry;
  known?.requestBegins();
  void readItem(path, response)
    .catch((error: unknown) => {
      answer(response, 500, { error: String(error) });
      return 500;
    })
    .then((status) => known?.requestEnds(status, (performance.now() - beganAt) / 1000));
}

async function readJson(message: IncomingMessage, mostBytes: number): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of message as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > mostBytes) throw new Error(`The body is larger than ${mostBytes} bytes.`);
    chunks.push(chunk);
  }
  return JSON.parse(Buffer.concat(chunks).toString('utf8') || '{}');
}

function fetchSnapshot(peer: string): Promise<Item[]> {
  return new Promise((resolve, reject) => {
    const outgoing = request(
      `http://${peer}/admin/snapshot`,
      { timeout: longestPeerAnswerMs, agent: false },
      (message) => {
        if (message.statusCode !== 200) {
          message.resume();
          reject(new Error(`Peer ${peer} answered ${message.statusCode} to /admin/snapshot.`));
          return;
        }
        readJson(message, mostBytesFromPeer).then((body) => resolve((body as { items: Item[] }).items), reject);
      },
    );
    outgoing.on('timeout', () => outgoing.destroy(new Error(`Peer ${peer} sent no snapshot in time.`)));
    outgoing.on('error', reject);
    outgoing.end();
  });
}

async function preload(message: IncomingMessage, response: ServerResponse): Promise<void> {
  const { from } = (await readJson(message, 4096)) as { from?: string };
  if (from) catalogue.load(await fetchSnapshot(from));
  else catalogue.loadAll();
  answer(response, 200, { entries: catalogue.entries });
}

async function orderLeak(message: IncomingMessage, response: ServerResponse): Promise<void> {
  const order = (await readJson(message, 4096)) as { bytesPerSecond?: unknown; shape?: unknown; release?: unknown };
  const { bytesPerSecond = 0, shape = 'steady', release = false } = order;
  if (typeof bytesPerSecond !== 'number' || !(bytesPerSecond >= 0) || !leakShapes.includes(shape as LeakShape)) {
    answer(response, 400, { error: `Expected {"bytesPerSecond": n >= 0, "shape": ${leakShapes.join(' | ')}}.` });
    return;
  }
  leak.set({ bytesPerSecond, shape: shape as LeakShape, release: release === true });
  answer(response, 200, { bytesPerSecond, shape, leakedBytes: leak.leakedBytes });
}

function serve(message: IncomingMessage, response: ServerResponse): void {
  const path = (message.url ?? '/').split('?')[0] ?? '/';
  const orSayWhy = (work: Promise<void>): void =>
    void work.catch((error: unknown) => answer(response, 502, { error: (error as Error).message }));
  if (message.method === 'GET' && path.startsWith('/items/')) serveItem(path, response);
  else if (message.method === 'GET' && path === '/healthz') {
    answer(response, draining ? 503 : 200, { cell, instance, entries: catalogue.entries, draining });
  } else if (message.method === 'GET' && path === '/admin/snapshot')
    answer(response, 200, { items: catalogue.snapshot() });
  else if (message.method === 'POST' && path === '/admin/preload') orSayWhy(preload(message, response));
  else if (message.method === 'POST' && path === '/admin/leak') orSayWhy(orderLeak(message, response));
  else answer(response, 404, { error: `Nothing at ${message.method} ${path}.` });
}

async function startOwnTelemetry(brokers: string): Promise<void> {
  const { startTelemetry } = await import('./service-telemetry.js');
  telemetry = startTelemetry({
    service: flags.service ?? 'catalogue',
    cell,
    instance,
    brokers: brokers.split(','),
    stepMs: numberFlag('step-ms', flags['step-ms'], 1000),
    encoding: flags['otlp-encoding'] === 'json' ? 'json' : 'protobuf',
  });
}

/** Finishes what is in flight, then ends; callers are told to open no further request on their connections. */
function drain(server: Server): void {
  if (draining) return;
  draining = true;
  setTimeout(() => process.exit(0), longestDrainMs).unref();
  leak.set({ bytesPerSecond: 0, shape: 'steady', release: false });
  server.close(() => {
    void (telemetry?.stop() ?? Promise.resolve()).finally(() => process.exit(0));
  });
  server.closeIdleConnections();
}

if (flags.preloaded) catalogue.loadAll();
const server = createServer(serve);
// Longer than any proxy's idle timeout in the lab, so that it is the proxy who closes an idle connection.
server.keepAliveTimeout = 75_000;
server.listen(port, address, () => {
  const bound = server.address();
  const boundPort = bound !== null && typeof bound === 'object' ? bound.port : port;
  process.stdout.write(
    `${JSON.stringify({ msg: 'ready', service: flags.service, cell, instance, port: boundPort })}\n`,
  );
  // After the listener: starting fast matters more than the first second of metrics.
  if (flags.kafka) void startOwnTelemetry(flags.kafka);
});
server.on('error', (error) => {
  process.stderr.write(`The reference service cannot listen on ${address}:${port}: ${error.message}\n`);
  process.exit(1);
});
process.on('SIGTERM', () => drain(server));
process.on('SIGINT', () => drain(server));
