/**
 * What all JavaScript services of the lab share: HTTP, slots and their line, telemetry lines, faults, and an orderly end.
 * `runService(readInstanceConfig(), definition)` is a whole service; the definition says what a request does.
 */
import { labServices, type InstanceConfig, type LabService } from '../contract';
import { seededRandom } from '../random';
import { burn } from './cpu';
import { InstanceFaults, parseFaultOrder, type FaultHandlers } from './instance-faults';
import { RequestSlots } from './request-slots';
import { RuntimeMeter } from './runtime-meter';
import { SmallHttpServer, type Call } from './small-http';
import { RequestMeter, rounded, type StepValues } from './step-values';

export { BoundedPool } from './bounded-pool';
export { DependencyMeter } from './dependency-meter';
export { quantile, type StepValues } from './step-values';
export type { FaultHandler, FaultHandlers } from './instance-faults';

/** What a service's code may ask of its harness, in a request or beside one. */
export interface Harness {
  readonly config: InstanceConfig;
  /** Uniform in [0, 1), seeded by the instance's name and `knobs.seed`. */
  readonly random: () => number;
  /** Time of the next piece of work, in ms: log-normal around `serviceMs`, times what the faults in force add. */
  readonly drawServiceMs: () => number;
  /** Waits without using the CPU. */
  readonly hold: (ms: number) => Promise<void>;
  /** Uses the CPU for so many ms of CPU time, in slices. */
  readonly burn: (ms: number) => Promise<void>;
}

/** One request of `GET /work`, holding a slot. */
export interface WorkContext extends Harness {
  /** The caller has given up: whatever is still to be done is for nobody. */
  readonly gone: () => boolean;
}

export interface ServiceDefinition {
  /**
   * Does the request's work, waiting or computing for `ctx.drawServiceMs()` at least once. What it resolves to is answered
   * as JSON; what it throws is answered 500, or with the status of an `AnswerError`.
   */
  work(key: number, ctx: WorkContext): Promise<unknown>;
  /** Called once per step: the service's own metrics, over the `elapsedS` seconds since the last call. */
  metrics?(elapsedS: number): StepValues;
  /** Its own faults; one of the generic ones is replaced by naming it here. */
  faults?: FaultHandlers;
  /** Before the ready line: connect, fill. A failure ends the process. */
  start?(harness: Harness): Promise<void>;
  /** On SIGTERM, after the last request; cut off with everything else 1.8 s after the signal. */
  stop?(): Promise<void>;
}

/** Answers a request with this status and not with 500. */
export class AnswerError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** Spread of the service time: the standard deviation of its logarithm. */
const serviceTimeSpread = 0.35;
/** A line that a service does not call limited still ends somewhere. */
const longestUndeclaredLine = 2000;
const longestDrainMs = 1800;

/** The configuration from the first argument; ends the process with one line if it is not usable. */
export function readInstanceConfig(text = process.argv[2]): InstanceConfig {
  const fail = (why: string): never => {
    process.stderr.write(`Expected the instance's configuration as one JSON argument: ${why}.\n`);
    process.exit(2);
  };
  let config: InstanceConfig;
  try {
    config = JSON.parse(text ?? '') as InstanceConfig;
  } catch (error) {
    return fail((error as Error).message);
  }
  if (!labServices.includes(config.service)) fail(`service must be one of ${labServices.join(', ')}`);
  for (const field of ['port', 'stepMs', 'slots', 'serviceMs'] as const) {
    if (!(typeof config[field] === 'number' && config[field] >= 0)) fail(`${field} must be a number of 0 or above`);
  }
  if (config.stepMs < 50 || config.slots < 1) fail('stepMs must be at least 50 and slots at least 1');
  return { ...config, knobs: config.knobs ?? {} };
}

/** A knob's value, or the fallback. */
export function knob(config: InstanceConfig, name: string, fallback: number): number {
  return config.knobs[name] ?? fallback;
}

function seedOf(config: InstanceConfig): number {
  let seed = knob(config, 'seed', 1);
  for (const character of config.instance) seed = (Math.imul(seed, 31) + character.charCodeAt(0)) | 0;
  return seed;
}

/** Normal by Box and Muller; the mean of exp(spread * normal - spread² / 2) is 1. */
function logNormalWithMeanOne(random: () => number): number {
  const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return Math.exp(serviceTimeSpread * normal - (serviceTimeSpread * serviceTimeSpread) / 2);
}

const hold = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

function keyOf(url: string): number {
  const at = url.indexOf('key=');
  const key = at < 0 ? 0 : Number.parseInt(url.slice(at + 4), 10);
  return Number.isFinite(key) ? key : 0;
}

/** Runs one instance until SIGTERM; an error that nobody caught ends it like any crash. Knobs it reads itself:
 * `queue` (longest line; makes `http.in_flight_limit` known), `changeAgeS` (age of the last change at start),
 * `leakShape` (0 steady, 1 stepwise, 2 per request), `burnSliceMs` (of the fault cpu-burn), `seed`. */
export function runService(config: InstanceConfig, definition: ServiceDefinition): void {
  const random = seededRandom(seedOf(config));
  let changedAtMs = Date.now() - 1000 * knob(config, 'changeAgeS', 0);
  const faults = new InstanceFaults(
    random,
    knob(config, 'leakShape', 0),
    () => (changedAtMs = Date.now()),
    config.knobs['burnSliceMs'],
  );
  const handlers: FaultHandlers = { ...faults.handlers, ...definition.faults };
  const declaredLine = config.knobs['queue'];
  const slots = new RequestSlots(config.slots, declaredLine ?? longestUndeclaredLine);
  const requests = new RequestMeter();
  const runtime = new RuntimeMeter();
  const harness: Harness = {
    config,
    random,
    hold,
    burn,
    drawServiceMs: () => config.serviceMs * logNormalWithMeanOne(random) * faults.timeFactor(),
  };
  let draining = false;

  async function work(key: number, call: Call): Promise<number> {
    const place = slots.enter();
    call.onGone = () => place.abandon();
    const refusal = await place.entered;
    if (refusal === 'gone') return 499;
    if (refusal === 'full') {
      call.answer(503, { error: 'The line is full.' });
      return 503;
    }
    try {
      faults.onRequest();
      const fails = faults.failsNext();
      const body = await definition.work(key, { ...harness, gone: () => call.gone });
      if (fails) throw new Error('Unexpected value.');
      if (call.gone) return 499;
      call.answer(200, body);
      return 200;
    } catch (error) {
      if (call.gone) return 499;
      const status = error instanceof AnswerError ? error.status : 500;
      call.answer(status, { error: (error as Error).message });
      return status;
    } finally {
      slots.leave();
    }
  }

  function orderFault(call: Call): void {
    try {
      const { fault, level, release } = parseFaultOrder(call.body);
      const handler = handlers[fault];
      if (!handler) throw new Error(`The service ${config.service} cannot have the fault ${fault}.`);
      handler(level, release === true);
      call.answer(200, { fault, level });
    } catch (error) {
      call.answer(400, { error: (error as Error).message });
    }
  }

  const http = new SmallHttpServer((call) => {
    const { method, url } = call;
    if (method === 'GET' && url.startsWith('/work')) {
      const beganAt = performance.now();
      void work(keyOf(url), call).then((status) => requests.ended(status, (performance.now() - beganAt) / 1000));
    } else if (method === 'GET' && url === '/healthz') call.answer(draining ? 503 : 200, { draining });
    else if (method === 'POST' && url === '/admin/fault') orderFault(call);
    else call.answer(404, { error: `Nothing at ${method} ${url}.` });
  });

  function speak(elapsedS: number, at: number): void {
    const values: StepValues = {
      ...requests.step(elapsedS),
      'http.in_flight': slots.inFlight,
      ...(declaredLine === undefined ? {} : { 'http.in_flight_limit': config.slots + declaredLine }),
      ...runtime.step(elapsedS),
      'change.age_s': (Date.now() - changedAtMs) / 1000,
      ...definition.metrics?.(elapsedS),
    };
    process.stdout.write(`${JSON.stringify({ at, metrics: rounded(values) })}\n`);
  }

  function speakEveryStep(): void {
    let lastAt = performance.now();
    const next = (): void => {
      const waitMs = config.stepMs - (Date.now() % config.stepMs);
      setTimeout(() => {
        const now = performance.now();
        // A timer may fire a little early; a blocked event loop makes it fire late, and the steps in between are lost.
        const at = Math.floor((Date.now() + 5) / config.stepMs) * config.stepMs;
        if (now - lastAt > config.stepMs / 10) {
          speak((now - lastAt) / 1000, at);
          lastAt = now;
        }
        next();
      }, waitMs).unref();
    };
    next();
  }

  function end(): void {
    if (draining) return;
    draining = true;
    setTimeout(() => process.exit(0), longestDrainMs).unref();
    http.drain(() => void (definition.stop?.() ?? Promise.resolve()).finally(() => process.exit(0)));
  }

  // Only a failure to listen is fatal: one to accept, for want of a descriptor, is what the instance has to live with.
  http.server.on('error', (error) => {
    if (http.server.listening) return;
    process.stderr.write(`${config.instance} cannot listen on 127.0.0.1:${config.port}: ${error.message}\n`);
    process.exit(1);
  });
  // Whoever started the instance has gone without stopping it.
  process.stdout.on('error', () => process.exit(0));
  process.on('SIGTERM', end);
  process.on('SIGINT', end);
  void (definition.start?.(harness) ?? Promise.resolve()).then(
    () =>
      http.listen(config.port, (port) => {
        process.stdout.write(`${JSON.stringify({ msg: 'ready', port, pid: process.pid })}\n`);
        speakEveryStep();
      }),
    (error: Error) => {
      process.stderr.write(`${config.instance} cannot start: ${error.message}\n`);
      process.exit(1);
    },
  );
}

export type { InstanceConfig, LabService };
