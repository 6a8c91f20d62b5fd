/**
 * The slow store behind `lookup` and `gateway`: a few slots, each held for `serviceMs`, and a line without end, so that more
 * callers than it has capacity for really overload it. `node dist/lab/services/store.js --config '{"port":0,"slots":4,"serviceMs":20}'`.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { readFlags } from '../arguments';
import { RequestSlots } from './request-slots';

interface StoreConfig {
  port: number;
  slots: number;
  serviceMs: number;
}

const faultNames = ['slow-code', 'gray-error'] as const;
type StoreFault = (typeof faultNames)[number];
const longestOrderBytes = 4096;

function readConfig(text: string | undefined): StoreConfig {
  try {
    const config = JSON.parse(text ?? '') as StoreConfig;
    for (const field of ['port', 'slots', 'serviceMs'] as const) {
      if (!(typeof config[field] === 'number' && config[field] >= 0)) throw new Error(`${field} must be a number`);
    }
    return config;
  } catch (error) {
    process.stderr.write(`--config must be JSON with port, slots and serviceMs: ${(error as Error).message}.\n`);
    process.exit(2);
  }
}

const config = readConfig(readFlags({ config: 'string' }).config);
const slots = new RequestSlots(config.slots, Infinity);
const levels: Record<StoreFault, number> = { 'slow-code': 0, 'gray-error': 0 };

function answer(response: ServerResponse, status: number, body: unknown): void {
  if (response.destroyed) return;
  const text = JSON.stringify(body);
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) });
  response.end(text);
}

async function serveItem(url: string, response: ServerResponse): Promise<void> {
  const place = slots.enter();
  response.on('close', () => place.abandon());
  if ((await place.entered) !== undefined) return;
  try {
    // Uniform between half and one and a half of the mean.
    const ms = config.serviceMs * (0.5 + Math.random()) * Math.max(1, levels['slow-code']);
    await new Promise((resolve) => setTimeout(resolve, ms));
    if (Math.random() < levels['gray-error']) answer(response, 500, { error: 'Unexpected value.' });
    else answer(response, 200, { item: url.slice(url.indexOf('key=') + 4) });
  } finally {
    slots.leave();
  }
}

async function orderFault(message: IncomingMessage, response: ServerResponse): Promise<void> {
  try {
    let text = '';
    for await (const chunk of message as AsyncIterable<Buffer>) {
      text += chunk.toString('utf8');
      if (text.length > longestOrderBytes) throw new Error('The order is too long.');
    }
    const { fault, level } = JSON.parse(text) as { fault: StoreFault; level: unknown };
    if (!faultNames.includes(fault) || typeof level !== 'number' || !(level >= 0)) {
      throw new Error(`Expected {"fault": ${faultNames.join(' | ')}, "level": a number of 0 or above}.`);
    }
    levels[fault] = level;
    answer(response, 200, { fault, level });
  } catch (error) {
    answer(response, 400, { error: (error as Error).message });
  }
}

const server = createServer((message, response) => {
  const url = message.url ?? '/';
  if (message.method === 'GET' && url.startsWith('/item')) void serveItem(url, response);
  else if (message.method === 'GET' && url === '/healthz') answer(response, 200, {});
  else if (message.method === 'POST' && url === '/admin/fault') void orderFault(message, response);
  else answer(response, 404, { error: `Nothing at ${message.method} ${url}.` });
});
server.keepAliveTimeout = 75_000;
server.on('error', (error) => {
  process.stderr.write(`The store cannot listen on 127.0.0.1:${config.port}: ${error.message}\n`);
  process.exit(1);
});
server.listen(config.port, '127.0.0.1', () => {
  const bound = server.address();
  const port = bound !== null && typeof bound === 'object' ? bound.port : config.port;
  process.stdout.write(`${JSON.stringify({ msg: 'ready', port, pid: process.pid })}\n`);
});
process.stdout.on('error', () => process.exit(0));
process.on('SIGTERM', () => {
  setTimeout(() => process.exit(0), 1800).unref();
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
