/**
 * The slow store behind `lookup` and `gateway`: a few slots, each held for `serviceMs`, and a line without end, so that more
 * callers than it has capacity for really overload it. `node dist/lab/services/store.js --config '{"port":0,"slots":4,"serviceMs":20}'`.
 */
import { readFlags } from '../arguments';
import { RequestSlots } from './request-slots';
import { SmallHttpServer, type Call } from './small-http';

interface StoreConfig {
  port: number;
  slots: number;
  serviceMs: number;
}

const faultNames = ['slow-code', 'gray-error'] as const;
type StoreFault = (typeof faultNames)[number];

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

async function serveItem(call: Call): Promise<void> {
  const place = slots.enter();
  call.onGone = () => place.abandon();
  if ((await place.entered) !== undefined) return;
  try {
    // Uniform between half and one and a half of the mean.
    const ms = config.serviceMs * (0.5 + Math.random()) * Math.max(1, levels['slow-code']);
    await new Promise((resolve) => setTimeout(resolve, ms));
    if (Math.random() < levels['gray-error']) call.answer(500, { error: 'Unexpected value.' });
    else call.answer(200, { item: call.url.slice(call.url.indexOf('key=') + 4) });
  } finally {
    slots.leave();
  }
}

function orderFault(call: Call): void {
  try {
    const { fault, level } = JSON.parse(call.body) as { fault: StoreFault; level: unknown };
    if (!faultNames.includes(fault) || typeof level !== 'number' || !(level >= 0)) {
      throw new Error(`Expected {"fault": ${faultNames.join(' | ')}, "level": a number of 0 or above}.`);
    }
    levels[fault] = level;
    call.answer(200, { fault, level });
  } catch (error) {
    call.answer(400, { error: (error as Error).message });
  }
}

const http = new SmallHttpServer((call) => {
  const { method, url } = call;
  if (method === 'GET' && url.startsWith('/item')) void serveItem(call);
  else if (method === 'GET' && url === '/healthz') call.answer(200, {});
  else if (method === 'POST' && url === '/admin/fault') orderFault(call);
  else call.answer(404, { error: `Nothing at ${method} ${url}.` });
});
http.server.on('error', (error) => {
  if (http.server.listening) return;
  process.stderr.write(`The store cannot listen on 127.0.0.1:${config.port}: ${error.message}\n`);
  process.exit(1);
});
http.listen(config.port, (port) =>
  process.stdout.write(`${JSON.stringify({ msg: 'ready', port, pid: process.pid })}\n`),
);
process.stdout.on('error', () => process.exit(0));
process.on('SIGTERM', () => {
  setTimeout(() => process.exit(0), 1800).unref();
  http.drain(() => process.exit(0));
});
