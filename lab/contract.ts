/** What the chaos lab's parts agree on: how an instance is started, what it says, and how a fault is ordered. */
import type { MetricName } from '../prediction/metrics';

/** The reference services; `reports` is written in Python, the others in TypeScript. */
export const labServices = [
  'sessions',
  'render',
  'orders',
  'journal',
  'gateway',
  'worker',
  'lookup',
  'reports',
] as const;
export type LabService = (typeof labServices)[number];

/** A host and port that the instance reaches through the lab's TCP proxy, where network faults are made. */
export interface Peer {
  host: string;
  port: number;
}

/**
 * Handed to an instance as one JSON argument: `node dist/lab/services/<service>.js '<json>'`, `python3
 * lab/services/reports.py '<json>'`.
 */
export interface InstanceConfig {
  service: LabService;
  cell: string;
  instance: string;
  /** 0: the instance chooses, and says so in its ready line. Always on 127.0.0.1. */
  port: number;
  /** Interval of its telemetry, aligned to multiples of it. */
  stepMs: number;
  /** Requests served at once; the rest wait in line. */
  slots: number;
  /** Mean time a request holds its slot when all is well, before waiting for anything else. */
  serviceMs: number;
  /** Service-specific knobs: items, pool size, cache size, payload bytes, retries. */
  knobs: Readonly<Record<string, number>>;
  /** Where it may write; a capped file system of its own. */
  dir?: string;
  /** The downstream service, store, Postgres or Kafka. */
  dependency?: Peer;
  /** Memory limit in bytes that is really enforced (heap flag, address-space limit or cgroup). */
  memoryLimitBytes?: number;
}

/** First line on stdout. */
export interface ReadyLine {
  msg: 'ready';
  port: number;
  pid: number;
}

/** Every following line on stdout: what the instance says of itself at one step. A metric it cannot say is left out. */
export interface StepLine {
  /** Milliseconds since the epoch, the end of the step. */
  at: number;
  metrics: Partial<Record<MetricName, number>>;
}

/**
 * Ordered by `POST /admin/fault {"fault": ..., "level": n}`; answered 200 when in force, 400 if the service cannot.
 * The level is what it says here; 0 ends the fault, and `release` in the order gives back what it had taken.
 * The same mechanism at a harmless level makes a look-alike.
 */
export const instanceFaults = {
  'heap-leak': 'bytes per second that stay reachable on the heap',
  'buffer-leak': 'bytes per second that stay allocated outside of the heap',
  'cpu-burn': 'share of one core, 0 to 1, burnt in slices beside the requests',
  'slow-code': 'factor on the CPU or slot time of each request, 1 and above; 0 ends it',
  'fd-leak': 'descriptors opened per second and never closed',
  'gray-slow': 'share of requests, 0 to 1, that take 20 times as long; health stays green',
  'gray-error': 'share of requests, 0 to 1, answered 500; health stays green',
  'bad-release': 'share of requests, 0 to 1, answered 500 from a change on; sets change.age_s to 0',
  'pool-leak': 'connections per second taken from the pool and never given back (orders, gateway)',
  'disk-fill': 'bytes per second written to files that are never removed (journal, reports)',
  'disk-slow': 'mean extra seconds per file write, in bursts (journal, reports)',
  'cache-flush': 'share of the cache, 0 to 1, dropped at once; while above 0 nothing dropped is kept again (lookup)',
  'consumer-slow': 'factor on the time per message, 1 and above; 0 ends it (worker)',
} as const;
export type InstanceFault = keyof typeof instanceFaults;

export interface FaultOrder {
  fault: InstanceFault;
  level: number;
  release?: boolean;
}
