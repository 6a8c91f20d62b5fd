/** Window snapshots: a worker that goes on from one says to the bit what a worker that never stopped says. */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect } from 'chai';
import * as fc from 'fast-check';
import { pino } from 'pino';
import { policySchema } from '../../blueprints/schema';
import { settingsSchema } from '../../blueprints/settings';
import { waitUntil } from '../../local/wait';
import type { ScoringModel } from '../../prediction/cell-scoring';
import type { RiskEvent } from '../../prediction/contracts';
import { ScoringEngine } from '../../prediction/engine';
import { Model } from '../../prediction/model';
import type { PartitionStart, Position, TelemetryRecord } from '../../prediction/telemetry-source';
import type { WantedSnapshot, WindowStore } from '../../prediction/window-store';
import { writeTinyModel } from '../support/tiny-model';

const topic = 'telemetry';
const t0 = 1_795_328_800_000;
const partitionCount = 2;
const policy = policySchema.parse({ autonomy: 'act' });
const known = { service: 'checkout', policy, sloLatencyMs: 250, sloErrorRatio: 0.05, synthetic: false };
const settings = {
  kafka: settingsSchema.shape.kafka.parse({ brokers: ['unused:9092'], telemetry: [{ topic, decoder: 'detect' }] }),
  scoring: settingsSchema.shape.scoring.parse({ snapshotEverySteps: 7 }),
};

/** Snapshots in memory. `isBroken`: writes fail. */
class MemoryStore implements WindowStore {
  readonly records: { of: string; slot: number; index: number; record: Buffer }[] = [];
  isBroken = false;

  async write(of: string, slot: number, index: number, record: Buffer) {
    await nextTurn();
    if (this.isBroken) throw new Error('away');
    return { partition: 0, offset: this.records.push({ of, slot, index, record }) - 1 };
  }

  async read(wanted: readonly WantedSnapshot[], recordsOf: (record: Buffer) => number) {
    const found = new Map<string, Buffer[]>();
    for (const { of, slot, offset } of wanted) {
      const some = this.records.slice(offset).filter((r) => r.of === of && r.slot === slot);
      const first = some[0];
      if (first)
        found.set(
          of,
          some.slice(0, recordsOf(first.record)).map(({ record }) => record),
        );
    }
    return found;
  }

  async close() {
    await nextTurn();
  }
}

/** What the telemetry topic and the group's commits are for a worker. */
class Broker {
  readonly commits = new Map<number, Position>();
  readonly store = new MemoryStore();

  constructor(readonly log: readonly (readonly TelemetryRecord[])[]) {}

  starts(): PartitionStart[] {
    return this.log.map((records, partition) => {
      const committed = this.commits.get(partition);
      return {
        topic,
        partition,
        from: 0,
        committed: committed?.offset ?? null,
        committedTickMs: committed?.tickMs ?? null,
        end: records.length,
        low: 0,
        windows: committed?.windows ?? null,
      };
    });
  }
}

/** What was said: by tick and cell, the score and the bits of all features. */
class Said {
  readonly byTick = new Map<string, Set<string>>();
  readonly events = new Map<string, string>();

  score(of: string, text: string): void {
    const said = this.byTick.get(of) ?? new Set<string>();
    this.byTick.set(of, said.add(text));
  }
}

/** A model that keeps a hash of what it was asked. */
function watched(model: Model): ScoringModel & { asked: string } {
  const self = {
    id: model.id,
    bins: model.bins,
    manifest: model.manifest,
    forest: model.forest,
    asked: '',
    rows: (count: number) => model.rows(count),
    run: (count: number) => {
      const rows = model.rows(count);
      self.asked = createHash('sha256')
        .update(Buffer.from(rows.buffer, rows.byteOffset, rows.byteLength))
        .digest('hex');
      return model.run(count);
    },
  };
  return self;
}

class Worker {
  readonly engine: ScoringEngine;
  private readonly next: number[] = [];
  private nowMs = t0;

  constructor(
    private readonly broker: Broker,
    model: Model,
    said: Said,
    isKeeping: boolean,
  ) {
    const asked = watched(model);
    this.engine = new ScoringEngine({
      settings,
      model: asked,
      directory: { find: () => known, refresh: async () => undefined },
      publisher: {
        scores: async (scores) => {
          for (const score of scores)
            said.score(`${score.ts} ${score.cell}`, `${asked.asked} ${JSON.stringify(score)}`);
        },
        deadLetters: async () => undefined,
      },
      notifier: { notify: async (event: RiskEvent) => void said.events.set(event.eventId, JSON.stringify(event)) },
      log: pino({ level: 'silent' }),
      now: () => this.nowMs,
      windows: isKeeping ? broker.store : undefined,
      source: {
        start: async () => undefined,
        stop: async () => undefined,
        commit: async (positions) => positions.forEach((p) => broker.commits.set(p.partition, p)),
        pause: () => undefined,
        resume: () => undefined,
        trouble: () => undefined,
      },
    });
  }

  async begin(): Promise<void> {
    await this.engine.start();
    const starts = this.broker.starts();
    // As late as telemetry was read up to, for what is stale and what is too old is told by the clock.
    for (const { partition, committed } of starts) this.see(this.broker.log[partition]?.[(committed ?? 0) - 1]);
    const restored = await this.engine.assigned(starts);
    for (const { partition, from } of starts) {
      this.next[partition] = restored.find((r) => r.partition === partition)?.from ?? from;
    }
  }

  private see(record: TelemetryRecord | undefined): void {
    if (record) this.nowMs = Math.max(this.nowMs, record.timestampMs + 1_000);
  }

  /** Reads so many records of the partition that is behind. False if there are none left. */
  async read(count: number): Promise<boolean> {
    const { log } = this.broker;
    const timeOf = (p: number) => log[p]?.[this.next[p] as number]?.timestampMs ?? Infinity;
    const partition = timeOf(0) <= timeOf(1) ? 0 : 1;
    const from = this.next[partition] as number;
    const all = log[partition] ?? [];
    const some = all.slice(from, from + count);
    if (some.length === 0) return false;
    this.next[partition] = from + some.length;
    this.see(some[some.length - 1]);
    await this.engine.records({ topic, partition }, some, all.length);
    // Snapshots are written beside the reading.
    for (let i = 0; i < 3; i++) await nextTurn();
    return true;
  }

  stop(): Promise<void> {
    return this.engine.stop({ commit: false });
  }
}

interface Course {
  seed: number;
  cells: number;
  steps: number;
  /** How much of the telemetry is missing. */
  gaps: number;
  /** Whether some cells come by both partitions. */
  isMixed: boolean;
}

function noise(seed: number): number {
  let x = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return ((x ^ (x >>> 16)) >>> 0) / 2 ** 32;
}

/** Random telemetry: leaks, gaps, several instances, metrics that come late, values that jump, times that are not quite in order. */
function telemetry({ seed, cells, steps, gaps, isMixed }: Course): TelemetryRecord[][] {
  const log: TelemetryRecord[][] = Array.from({ length: partitionCount }, () => []);
  for (let step = 0; step < steps; step++) {
    for (let cell = 0; cell < cells; cell++) {
      const random = (i: number) => noise(seed * 7919 + cell * 104_729 + step * 31 + i);
      if (random(1) < gaps) continue;
      const timestampMs = t0 + step * 1000 + Math.floor(random(2) * 400);
      const leak = noise(seed + cell) < 0.5 ? (step * noise(seed + cell * 3)) / 60 : 0;
      const metrics: Record<string, number> = {
        'heap.used_bytes': 64e6 * Math.min(0.99, 0.3 + 0.05 * random(3) + leak),
        'heap.limit_bytes': 64e6,
        'http.request_rate': 100 + 10 * random(4),
        'http.latency_p99_s': 0.04 * (random(5) < 0.02 ? 1000 : 1 + random(6)),
      };
      if (step > 20) metrics['fd.used'] = 10 + Math.floor(5 * random(7));
      const instance = `cell-${cell}-${random(8) < 0.5 ? 1 : 2}`;
      const atMs = timestampMs - Math.floor(random(9) * 300);
      const record = { schema: 'understudy.telemetry/v1', cell: `cell-${cell}`, instance, metrics };
      const value = Buffer.from(JSON.stringify({ ...record, ts: new Date(atMs).toISOString() }));
      const partition = isMixed && cell % 3 === 0 ? step % partitionCount : cell % partitionCount;
      log[partition]?.push({ offset: 0, timestampMs, key: null, value, headers: {} });
    }
  }
  return log.map((records) => records.map((record, offset) => ({ ...record, offset })));
}

describe('Window snapshots', function () {
  this.timeout(180_000);
  let dir: string;
  let model: Model;

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'understudy-snapshots-'));
    model = await Model.load(writeTinyModel(dir));
  });
  after(async () => {
    await model?.release();
    rmSync(dir, { recursive: true, force: true });
  });

  /** Reads all; `killAfter`: workers that end without notice after so many calls. Answers the last worker's counters. */
  async function run(broker: Broker, said: Said, killAfter: readonly number[], isKeeping: boolean, chunk: number) {
    for (const calls of [...killAfter, Infinity]) {
      const worker = new Worker(broker, model, said, isKeeping);
      await worker.begin();
      for (let call = 0; call < calls; call++) if (!(await worker.read(1 + ((call * 7) % chunk)))) break;
      const { counters } = worker.engine;
      await worker.stop();
      if (calls === Infinity) return counters;
    }
    throw new Error('there is always a last worker');
  }

  const courses = fc.record({
    seed: fc.integer({ min: 1, max: 1_000_000 }),
    cells: fc.integer({ min: 1, max: 7 }),
    steps: fc.integer({ min: 40, max: 110 }),
    gaps: fc.constantFrom(0, 0.05, 0.4),
    isMixed: fc.boolean(),
  });

  it('go on bit by bit as if nobody had stopped, whenever workers are killed and whatever they read', async () => {
    let restored = 0;
    const kills = fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(courses, kills, fc.integer({ min: 3, max: 40 }), async (course, killAfter, chunk) => {
        const log = telemetry(course);
        const once = new Said();
        await run(new Broker(log), once, [], false, chunk);
        const again = new Said();
        const counters = await run(new Broker(log), again, killAfter, true, chunk);
        restored += counters.get('windows.restored');
        expect(counters.get('windows.refused')).to.equal(0);
        expect([...again.byTick.keys()].sort()).to.deep.equal([...once.byTick.keys()].sort());
        for (const [ts, said] of again.byTick) expect([...said], ts).to.deep.equal([...(once.byTick.get(ts) ?? [])]);
        expect([...again.events].sort()).to.deep.equal([...once.events].sort());
      }),
      { numRuns: 8 },
    );
    expect(restored, 'cells that went on from a snapshot').to.be.greaterThan(0);
  });

  /** A worker that has read half, with snapshots, and was killed. */
  async function half(log: TelemetryRecord[][]): Promise<{ broker: Broker; said: Said }> {
    const broker = new Broker(log);
    const said = new Said();
    const worker = new Worker(broker, model, said, true);
    await worker.begin();
    const total = log.reduce((n, { length }) => n + length, 0);
    for (let read = 0; read < total / 2; read += 10) await worker.read(10);
    const { counters } = worker.engine;
    await waitUntil(() => counters.get('windows.snapshots') >= 2, { withinMs: 5_000, what: 'snapshots are written' });
    await worker.read(10);
    await worker.read(10);
    await worker.stop();
    return { broker, said };
  }
  const plain: Course = { seed: 7, cells: 6, steps: 120, gaps: 0.05, isMixed: false };

  it('spare a new worker what lies before them', async () => {
    const log = telemetry(plain);
    const { broker, said } = await half(log);
    const worker = new Worker(broker, model, said, true);
    await worker.begin();
    while (await worker.read(50));
    expect(worker.engine.counters.get('windows.restored')).to.equal(plain.cells);
    expect(worker.engine.counters.get('records')).to.be.below(log.reduce((n, { length }) => n + length, 0));
    await worker.stop();
  });

  it('are not used if they are damaged, cut short, of another version or ahead of the commit: telemetry is read again', async () => {
    const log = telemetry(plain);
    const once = new Said();
    await run(new Broker(log), once, [], false, 20);
    const harm: ((broker: Broker) => void)[] = [
      ({ store }) =>
        store.records.forEach(({ record }) =>
          record.writeUInt8(record.readUInt8(record.length - 9) ^ 1, record.length - 9),
        ),
      ({ store }) => store.records.splice(0),
      ({ store }) => store.records.forEach((r) => (r.record = r.record.subarray(0, r.record.length >> 1))),
      ({ store }) => store.records.forEach((r) => (r.record = Buffer.from('rubbish'))),
      ({ store }) => (store.read = () => Promise.reject(new Error('away'))),
      ({ commits }) => commits.forEach((p) => (p.tickMs -= 60_000)),
      ({ commits }) => commits.forEach((p) => (p.offset = 1)),
    ];
    for (const [i, break_] of harm.entries()) {
      const { broker, said } = await half(log);
      expect([...broker.commits.values()].every(({ windows }) => windows !== null)).to.equal(true);
      break_(broker);
      const counters = await run(broker, said, [], true, 20);
      expect(counters.get('windows.restored'), `harm ${i}`).to.equal(0);
      expect(counters.get('windows.refused'), `harm ${i}`).to.equal(partitionCount);
      for (const [ts, scores] of said.byTick) {
        expect([...scores], `harm ${i}, ${ts}`).to.deep.equal([...(once.byTick.get(ts) ?? [])]);
      }
      expect(said.byTick.size, `harm ${i}`).to.equal(once.byTick.size);
    }
  });

  it('of cells that came by two partitions are used for both or for none', async () => {
    const { broker, said } = await half(telemetry({ ...plain, isMixed: true }));
    const other = broker.commits.get(1);
    if (other) other.windows = null;
    const worker = new Worker(broker, model, said, true);
    await worker.begin();
    expect(worker.engine.counters.get('windows.restored')).to.equal(0);
    expect(worker.engine.counters.get('windows.refused')).to.equal(1);
    await worker.stop();
  });

  it('that cannot be written hold up neither scores nor commits', async () => {
    const log = telemetry(plain);
    const broker = new Broker(log);
    broker.store.isBroken = true;
    const counters = await run(broker, new Said(), [], true, 20);
    expect(counters.get('windows.failed')).to.be.greaterThan(0);
    expect(counters.get('commits')).to.be.greaterThan(0);
    expect([...broker.commits.values()].every(({ windows }) => windows === null)).to.equal(true);
  });
});
