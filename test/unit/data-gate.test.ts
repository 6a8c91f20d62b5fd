/** No share before the data is there, all writes at once and before them the handover, and no end of a cell that owns the data. */
import { MockActivityEnvironment } from '@temporalio/testing';
import { expect } from 'chai';
import type { Ports } from '../../activities/ports';
import { ApplicationFailure } from '@temporalio/common';
import { trafficShifts } from '../../activities/shift-traffic';
import { syntheticCells } from '../../activities/synthetic-cell';
import { watching } from '../../activities/watch-failover';
import { StaleEpochError, type CellRecord } from '../../blueprints/records';
import { dataSyncSchema, policySchema } from '../../blueprints/schema';
import { DataGate, OwnsDataError, type Move, type Verdict } from '../../cells/data-sync/data-gate';
import type { DataSync, Lag } from '../../cells/data-sync/data-sync';
import { dataSyncOf } from '../../cells/data-sync/of-blueprint';
import type { Observation, ShiftRequest, ShiftResult, WatchRequest } from '../../workflows/steps';
import { waitUntil } from '../../local/wait';
import { serviceDocument } from '../support/documents';
import { quietRuntime } from '../support/failover-bench';

/** A data sync that does as it is told and writes down what it was asked. */
class FakeSync implements DataSync {
  readonly kind = 'fake';
  readonly limit = { behind: 100, seconds: 5 };
  livesInCells = true;
  owner = 'shop-a';
  epoch = 1;
  behind: Lag = { behind: 3, unit: 'records', seconds: 0.1 };
  unreachable = false;
  isOwnerWriting = true;
  isOwnerDead = false;
  /** Named the owner, and never promoted. */
  isUnfinished = false;
  /** So many of the next read-backs fail. */
  readBacksFail = 0;
  readonly asked: string[] = [];
  /** What following takes, by cell: it may hang or fail. */
  readonly followed: Record<string, () => Promise<void>> = {};
  readonly following = new Set<string>();

  async lag(): Promise<Lag> {
    return this.behind;
  }
  async follow(cell: { name: string }, owner: { name: string }): Promise<void> {
    if (this.isOwnerDead) throw new Error(`${owner.name} does not answer`);
    this.asked.push(`follow ${cell.name}`);
    await this.followed[cell.name]?.();
    this.following.add(`${cell.name} ${owner.name}`);
  }
  async isFollowing(cell: { name: string }, owner: { name: string }): Promise<boolean> {
    this.asked.push(`does ${cell.name} follow?`);
    return this.following.has(`${cell.name} ${owner.name}`);
  }
  async secure(to: { name: string }): Promise<void> {
    this.asked.push(`secure ${to.name}`);
  }
  async release(owner: { name: string }): Promise<void> {
    this.asked.push(`release ${owner.name}`);
  }
  async forget(at: { name: string }): Promise<void> {
    if (this.isOwnerDead && at.name === this.owner) throw new Error(`${at.name} does not answer`);
    this.asked.push(`forget at ${at.name}`);
  }
  async fence(owner: { name: string }) {
    this.asked.push(`fence ${owner.name}`);
    return { acknowledged: 40, how: `${owner.name} stopped` };
  }
  async promote(to: { name: string }, epoch: number) {
    if (this.unreachable) throw new Error(`${to.name} does not answer`);
    this.asked.push(`promote ${to.name}`);
    [this.owner, this.epoch] = [to.name, epoch];
    [this.isUnfinished, this.isOwnerWriting] = [false, true];
    return { position: 41, tookMs: 1 };
  }
  async readBack(to: { name: string }, epoch: number): Promise<string> {
    this.asked.push(`read back ${to.name}`);
    if (this.readBacksFail-- > 0) throw new Error('it could not be read to its end');
    return `${to.name} owns epoch ${epoch}`;
  }
  async isWriting(): Promise<boolean> {
    return this.isOwnerWriting;
  }
  async ownership() {
    return { epoch: this.epoch, owner: this.owner, isUnfinished: this.isUnfinished };
  }
  async close(): Promise<void> {
    this.asked.push('close');
  }
  /** Without what is always asked. */
  get told(): string[] {
    return this.asked.filter((what) => what !== 'close');
  }
}

/** `running`: cells that have an instance, as third cells need to be told anything. */
function gateOver(sync: FakeSync, dataSync: unknown = { kind: 'none' }, running: string[] = [], othersWithinMs = 0) {
  const cell = (name: string) =>
    ({
      name,
      service: 'shop',
      state: 'active',
      instances: running.includes(name) ? [{ name: `${name}-1`, address: '127.0.0.1', port: 1 }] : [],
      blueprint: { name: 'shop', version: 1 },
    }) as unknown as CellRecord;
  const cells = ['shop-a', 'shop-b', 'shop-a-understudy-1'].map(cell);
  const store = {
    cell: async (name: string) => cells.find((each) => each.name === name),
    cells: async () => cells,
    blueprint: async () => ({ spec: { dataSync } }),
  };
  return { gate: new DataGate(store as never, () => sync, undefined, othersWithinMs), synthetic: cells[2]! };
}

const move = (overrides: Partial<Move> = {}): Move => ({
  ...{ source: 'shop-a', syntheticCell: 'shop-a-understudy-1', direction: 'up', isTrial: false },
  ...overrides,
});

describe('The data gate of a failover', () => {
  it('lets no share, not even a trial, go to a cell that is too far behind', async () => {
    const sync = new FakeSync();
    sync.behind = { behind: 5_000, unit: 'records', seconds: 2 };
    const { gate } = gateOver(sync);
    for (const isTrial of [true, false]) {
      const { barred } = await gate.beforeMove(move({ isTrial }));
      expect(barred).to.contain('5000 records');
    }
    expect(sync.told.filter((what) => !what.startsWith('follow'))).to.deep.equal([]);
    expect(sync.owner).to.equal('shop-a');
  });

  it('leaves the writes where they are in a trial', async () => {
    const sync = new FakeSync();
    const { barred } = await gateOver(sync).gate.beforeMove(move({ isTrial: true }));
    expect(barred).to.equal(null);
    expect(sync.told).to.deep.equal([]);
  });

  it('hands the writes over before more than a trial moves, in this order and once', async () => {
    const sync = new FakeSync();
    const { gate } = gateOver(sync);
    const { barred, evidence } = await gate.beforeMove(move());
    expect(barred).to.equal(null);
    expect(evidence.at(-1)).to.equal('shop-a-understudy-1 owns epoch 2');
    const steps = ['follow', 'secure', 'fence', 'promote', 'read back'];
    expect(sync.told.map((what) => what.replace(/ \S+$/, ''))).to.deep.equal(steps);
    await gate.beforeMove(move());
    expect(sync.epoch).to.equal(2);
  });

  it('moves no share before a handover was read back, and tells all of it, though the new owner writes already', async () => {
    const sync = new FakeSync();
    const { gate } = gateOver(sync);
    for (const [direction, epoch, from, to] of [
      ['up', 2, 'shop-a', 'shop-a-understudy-1'],
      ['down', 3, 'shop-a-understudy-1', 'shop-a'],
    ] as const) {
      sync.readBacksFail = 1;
      expect((await gate.beforeMove(move({ direction }))).barred).to.contain('it could not be read to its end');
      expect([sync.owner, sync.epoch]).to.deep.equal([to, epoch]);
      const { barred, evidence } = await gate.beforeMove(move({ direction }));
      expect(barred).to.equal(null);
      expect(evidence).to.include.members([`${from} stopped`, `${to} owns epoch ${epoch}`]);
      expect(await gate.beforeMove(move({ direction })), 'once').to.deep.equal({ barred: null, evidence: [] });
    }
  });

  it('hands them back before the share goes back', async () => {
    const sync = new FakeSync();
    const { gate } = gateOver(sync);
    await gate.beforeMove(move());
    expect((await gate.beforeMove(move({ direction: 'down' }))).barred).to.equal(null);
    expect([sync.owner, sync.epoch]).to.deep.equal(['shop-a', 3]);
  });

  it('leaves the writes with a third cell that owns them, there and back, and still wants the data to be there', async () => {
    const sync = new FakeSync();
    sync.owner = 'shop-b';
    const { gate, synthetic } = gateOver(sync);
    expect((await gate.beforeMove(move())).barred).to.equal(null);
    expect((await gate.beforeMove(move({ direction: 'down' }))).barred).to.equal(null);
    await gate.beforeEnd(synthetic, 'shop-a', true);
    expect(sync.told).to.deep.equal(['release shop-b']);
    expect([sync.owner, sync.epoch]).to.deep.equal(['shop-b', 1]);
    sync.behind = { behind: 5_000, unit: 'records', seconds: 2 };
    expect((await gate.beforeMove(move())).barred).to.contain('5000 records');
  });

  it('excuses errors of a cell that hands writes on to an owner that takes none', async () => {
    const sync = new FakeSync();
    const { gate, synthetic } = gateOver(sync);
    expect(await gate.excuse(synthetic.name)).to.equal(null);
    sync.isOwnerWriting = false;
    expect(await gate.excuse(synthetic.name)).to.equal('shop-a owns the data and takes no writes');
    sync.owner = synthetic.name;
    expect(await gate.excuse(synthetic.name), 'its own are its own').to.equal(null);
  });

  it('lets no share wait until a third cell that hangs was told whom to follow', async () => {
    const sync = new FakeSync();
    let goOn!: () => void;
    sync.followed['shop-b'] = () => new Promise((resolve) => (goOn = resolve));
    const { gate } = gateOver(sync, undefined, ['shop-b']);
    expect((await gate.beforeMove(move())).barred).to.equal(null);
    await waitUntil(() => sync.told.includes('follow shop-b'), { withinMs: 30_000, what: 'the third cell is told' });
    expect((await gate.beforeMove(move())).barred, 'the next step, while it still hangs').to.equal(null);
    expect(sync.told.filter((what) => what === 'follow shop-b')).to.have.length(1);

    const back = gate.beforeMove(move({ direction: 'down' }));
    await waitUntil(() => sync.told.includes('follow shop-a'), { withinMs: 30_000, what: 'the way back begins' });
    expect(sync.owner, 'nobody else owns what a cell is being told to copy').to.equal('shop-a-understudy-1');
    goOn();
    expect((await back).barred).to.equal(null);
    expect(sync.owner).to.equal('shop-a');
  });

  it('tells a third cell again with each change of the share until it follows, names it, and then leaves it in peace', async () => {
    const sync = new FakeSync();
    sync.followed['shop-b'] = () => Promise.reject(new Error('connect ECONNREFUSED'));
    const { gate } = gateOver(sync, undefined, ['shop-b']);
    const asked = (what: string) => sync.told.filter((each) => each === what).length;
    const moveUntil = (what: string, isSo: (evidence: string[]) => boolean) =>
      waitUntil(async () => isSo((await gate.beforeMove(move())).evidence), { withinMs: 30_000, what });
    const trouble = 'shop-b could not be told to follow shop-a-understudy-1: connect ECONNREFUSED';
    await moveUntil('it is named', (evidence) => evidence.includes(trouble));
    await moveUntil('it is told again', () => asked('follow shop-b') > 1);

    delete sync.followed['shop-b'];
    await moveUntil('it follows', () => sync.following.has('shop-b shop-a-understudy-1'));
    const [told, looked] = [asked('follow shop-b'), asked('does shop-b follow?')];
    await moveUntil('it is looked at again', () => asked('does shop-b follow?') > looked + 1);
    expect(asked('follow shop-b')).to.equal(told);
    expect((await gate.beforeMove(move())).evidence).to.deep.equal([]);
  });

  it('ends a handover that was broken off after its fence, before the share moves either way', async () => {
    const sync = new FakeSync();
    const { gate, synthetic } = gateOver(sync);
    Object.assign(sync, { owner: synthetic.name, epoch: 2, isUnfinished: true, isOwnerWriting: false });
    expect((await gate.beforeMove(move())).barred).to.equal(null);
    expect(sync.told).to.deep.equal([`promote ${synthetic.name}`, `read back ${synthetic.name}`]);
    expect([sync.owner, sync.epoch]).to.deep.equal([synthetic.name, 2]);

    Object.assign(sync, { isUnfinished: true, isOwnerWriting: false });
    expect((await gate.beforeMove(move({ direction: 'down' }))).barred).to.equal(null);
    expect([sync.owner, sync.epoch]).to.deep.equal(['shop-a', 3]);
  });

  it('hands the writes over from an owner that is dead: there is nobody left to follow', async () => {
    const sync = new FakeSync();
    sync.isOwnerDead = true;
    const { gate, synthetic } = gateOver(sync);
    expect((await gate.beforeMove(move())).barred).to.equal(null);
    expect(sync.owner).to.equal(synthetic.name);
  });

  it('gives no share to an owner that takes no writes', async () => {
    const sync = new FakeSync();
    const { gate, synthetic } = gateOver(sync);
    Object.assign(sync, { owner: synthetic.name, isOwnerWriting: false, unreachable: true });
    expect((await gate.beforeMove(move())).barred).to.contain('does not answer');
    sync.unreachable = false;
    expect((await gate.beforeMove(move())).barred).to.equal(null);
    expect(sync.isOwnerWriting).to.equal(true);
  });

  it('moves nothing where the handover fails, and says why', async () => {
    const sync = new FakeSync();
    sync.unreachable = true;
    const { barred } = await gateOver(sync).gate.beforeMove(move());
    expect(barred).to.contain('shop-a-understudy-1 does not answer');
  });

  it('does not let a cell end that owns the data and cannot give it back', async () => {
    const sync = new FakeSync();
    const { gate, synthetic } = gateOver(sync);
    await gate.beforeMove(move());
    sync.unreachable = true;
    const ended = await gate.beforeEnd(synthetic, 'shop-a', true).catch((error: unknown) => error);
    expect(ended).to.be.instanceOf(OwnsDataError);
    sync.unreachable = false;
    await gate.beforeEnd(synthetic, 'shop-a', true);
    expect(sync.owner).to.equal('shop-a');
    expect(sync.told.at(-1)).to.equal('release shop-a');
  });

  it('warms by catching up, and makes sure that what is acknowledged is on both', async () => {
    const sync = new FakeSync();
    const { gate, synthetic } = gateOver(sync);
    expect(await gate.warm(synthetic, () => undefined)).to.contain('3 records');
    expect(sync.told).to.deep.equal(['secure shop-a-understudy-1']);
  });

  it('lets nobody wait for a cell of the idle pool, nor ends for it what a failover has begun', async () => {
    const sync = new FakeSync();
    const { gate, synthetic } = gateOver(sync);
    synthetic.owner = 'pool/shop';
    Object.assign(sync, { isUnfinished: true, isOwnerWriting: false });
    expect(await gate.warm(synthetic, () => undefined)).to.contain('3 records');
    expect(sync.told).to.deep.equal([]);
  });

  it('has a cell that rests follow the owner, and takes away what others keep for one that has ended', async () => {
    const sync = new FakeSync();
    const { gate, synthetic } = gateOver(sync, undefined, ['shop-a', 'shop-b', 'shop-a-understudy-1']);
    await gate.keepFollowing(synthetic);
    await gate.afterEnd(synthetic);
    const told = sync.told.filter((what) => !what.startsWith('does '));
    expect(told).to.deep.equal(['follow shop-a-understudy-1', 'forget at shop-a', 'forget at shop-b']);
    // Asked again later; meanwhile it keeps nobody from resting.
    sync.isOwnerDead = true;
    const failure = await gate.afterEnd(synthetic).catch((error: Error) => error.message);
    expect(failure).to.equal('shop-a does not answer');
    sync.livesInCells = false;
    await gate.afterEnd(synthetic);
  });

  it('asks nothing of a service without data', async () => {
    const sync = new FakeSync();
    const { synthetic } = gateOver(sync);
    const store = {
      cell: async () => synthetic,
      cells: async () => [],
      blueprint: async () => ({ spec: { dataSync: { kind: 'none' } } }),
    };
    const gate = new DataGate(store as never);
    expect(await gate.beforeMove(move())).to.deep.equal({ barred: null, evidence: [] });
    expect(await gate.warm(synthetic, () => undefined)).to.equal(null);
    await gate.beforeEnd(synthetic, 'shop-a', true);
    await gate.keepFollowing(synthetic);
    await gate.afterEnd(synthetic);
  });
});

describe('The share of a cell that keeps data', () => {
  before(quietRuntime);

  /** What was done in which order, and what came of it. */
  async function shift(
    verdict: Verdict,
    isStopped = false,
    { racesLost = 0 } = {},
  ): Promise<{ done: string[]; result: ShiftResult }> {
    const done: string[] = [];
    const applied = { epoch: 8, split: [], acknowledged: ['envoy'], refused: [], pending: [], tookMs: 3 };
    const traffic = (cell: string, shareBp: number, coverInstances: number) => ({
      ...{ cell, shareBp, coverInstances, measured: true, requestsPerSecond: 50, errorRatio: 0, requestsInFlight: 0 },
      ...{ measuredBp: shareBp, ageMs: 0, requestsTotal: 0, errorsTotal: 0 },
    });
    const ports = {
      store: {
        blueprint: async () => ({ name: 'shop', version: 1, spec: { capacity: { requestsPerSecond: 100 } } }),
        cell: async () => undefined,
        updateCell: async () => undefined,
        fleetStop: async () => (isStopped ? { by: 'ada', reason: 'release' } : undefined),
      },
      traffic: {
        getTraffic: async () => ({
          ...{ service: 'shop', epoch: 7, proxies: ['envoy'] },
          cells: [traffic('shop-a', 10_000, 0), traffic('shop-a-understudy-1', 0, 2)],
        }),
        applySplit: async () => {
          done.push('split');
          if (done.filter((what) => what === 'split').length <= racesLost) throw new StaleEpochError('shop', 7, 8);
          return applied;
        },
      },
      data: {
        beforeMove: async (asked: Move) => {
          // What is done is done: whoever asks again hears nothing of it.
          const evidence = done.length === 0 ? verdict.evidence : [];
          done.push(`${asked.direction}${asked.isTrial ? ', a trial' : ''}`);
          return { ...verdict, evidence };
        },
      },
    } as unknown as Ports;
    const step: ShiftRequest = {
      ...{ failover: 'failover/shop/shop-a', service: 'shop', cell: 'shop-a', syntheticCell: 'shop-a-understudy-1' },
      ...{ key: 'key', reason: 'test', blueprint: { name: 'shop', version: 1 } },
      ...{ purpose: 'step', targetBp: 1500, knownBp: 0, coverInstances: 0, minSourceLoad: 0 },
    };
    const result = await new MockActivityEnvironment().run(trafficShifts(ports).shiftTraffic, step);
    return { done, result: result as ShiftResult };
  }

  it('moves after the data has, and tells how that went', async () => {
    const { done, result } = await shift({ barred: null, evidence: ['shop-a stopped'] });
    expect(done).to.deep.equal(['up', 'split']);
    expect(result.why).to.contain('data: shop-a stopped');
  });

  it('tells how that went also where somebody else changed the split meanwhile', async () => {
    const { done, result } = await shift({ barred: null, evidence: ['shop-a stopped'] }, false, { racesLost: 1 });
    expect(done).to.deep.equal(['up', 'split', 'up', 'split']);
    expect(result.why).to.contain('data: shop-a stopped');
  });

  it('stays where it is while the data gate is closed', async () => {
    const { done, result } = await shift({ barred: 'the data gate is closed', evidence: [] });
    expect(done).to.deep.equal(['up']);
    expect(result).to.include({ applied: false, why: 'the data gate is closed' });
  });

  it('and its data stay where they are while the fleet is stopped', async () => {
    const { done, result } = await shift({ barred: null, evidence: [] }, true);
    expect(done).to.deep.equal([]);
    expect(result.applied).to.equal(false);
  });
});

describe('A synthetic cell on trial that hands writes on to a source which has just died', () => {
  before(quietRuntime);

  /** Nobody answers at the source's address, and every request to the synthetic cell has failed since the change. */
  async function watched(excuse: string | null): Promise<Observation> {
    const load = (cell: string, errorsTotal: number) => ({
      ...{ cell, shareBp: 5000, coverInstances: 0, measured: true, requestsPerSecond: 50, errorRatio: 0, ageMs: 0 },
      ...{ requestsInFlight: 0, measuredBp: 5000, requestsTotal: 20, errorsTotal },
    });
    const ports = {
      store: {
        blueprint: async () => ({ spec: { capacity: { requestsPerSecond: 100 } } }),
        cell: async () => ({ instances: [{ name: 'shop-a-1', address: '127.0.0.1', port: 1 }] }),
        service: async () => ({ spec: serviceDocument() }),
      },
      cells: {},
      traffic: {
        getTraffic: async () => ({
          ...{ service: 'shop', epoch: 7, proxies: ['envoy'] },
          cells: [load('shop-a', 20), load('shop-a-understudy-1', 20)],
        }),
      },
      data: { excuse: async () => excuse },
    } as unknown as Ports;
    const none = { requests: 0, errors: 0 };
    const request: WatchRequest = {
      ...{ failover: 'failover/shop/shop-a', service: 'shop', cell: 'shop-a', syntheticCell: 'shop-a-understudy-1' },
      ...{ blueprint: { name: 'shop', version: 1 }, healthCheckPath: '/healthz', healthCheckIntervalMs: 300 },
      ...{ known: 'alive', forMs: 60_000 },
      judge: {
        ...{ of: 'synthetic', baseline: none, minRequests: 10, maxErrorRatio: 0.02, notBeforeMs: 0 },
        ...{ intervalMs: 1000, wanted: 'any' },
      },
    };
    return await new MockActivityEnvironment().run(watching(ports).watchFailover, request);
  }

  it('is not judged by those errors: the watch goes on until the death is certain', async () => {
    const seen = await watched('shop-a owns the data and takes no writes');
    expect(seen).to.include({ ended: 'source', source: 'dead', verdict: null });
    expect(seen.excused).to.equal('shop-a owns the data and takes no writes');
  });

  it('is judged by errors of its own', async () => {
    const seen = await watched(null);
    expect(seen).to.include({ ended: 'verdict', verdict: 'bad' });
    expect(seen).not.to.have.property('excused');
  });
});

describe('A synthetic cell that owns the data and is to end', () => {
  before(quietRuntime);

  /** Why it was not ended, `scheduledAgoS` after it was first to be. */
  async function refusal(what: 'restAtIdle' | 'retireSyntheticCell', scheduledAgoS: number): Promise<Error> {
    const failover = 'failover/shop/shop-a';
    const cell = { name: 'shop-a-understudy-1', role: 'synthetic', state: 'serving', owner: failover };
    const ports = {
      store: {
        cell: async () => cell,
        cells: async () => [cell],
        service: async () => ({ spec: { policy: policySchema.parse({ holdAtMostS: 60 }) } }),
      },
      data: {
        beforeEnd: () => Promise.reject(new OwnsDataError('shop-a-understudy-1 is kept: nobody takes its data')),
      },
    } as unknown as Ports;
    const environment = new MockActivityEnvironment({ scheduledTimestampMs: Date.now() - scheduledAgoS * 1000 });
    const request = { failover, service: 'shop', cell: 'shop-a', syntheticCell: cell.name, key: 'key', reason: 'test' };
    const ended = environment.run(syntheticCells(ports)[what], request);
    return ended.then(
      () => expect.fail('it was ended'),
      (error: unknown) => error as Error,
    );
  }

  for (const what of ['restAtIdle', 'retireSyntheticCell'] as const) {
    it(`is kept and tried again by ${what}, but after holdAtMostS that fails for good and says why`, async () => {
      expect(await refusal(what, 5)).to.be.instanceOf(OwnsDataError);
      const last = await refusal(what, 61);
      expect(last).to.be.instanceOf(ApplicationFailure).and.to.include({ nonRetryable: true });
      expect(last.message).to.contain('nobody takes its data');
    });
  }
});

describe('The data sync of a blueprint', () => {
  const complaints = (dataSync: unknown) =>
    (dataSyncSchema.safeParse(dataSync).error?.issues ?? []).map(
      ({ path, message }) => `${path.join('.')}: ${message}`,
    );

  it('is refused with the path of what is wrong', () => {
    expect(complaints({ kind: 'kafka-changelog', brokers: ['kafka'], topic: 'a b' })).to.deep.equal([
      'brokers.0: must be host:port',
      'topic: must be the name of a topic',
    ]);
    expect(complaints({ kind: 'postgres', user: 'u', database: 'd', passwordFile: 'secret' })).to.deep.equal([
      'passwordFile: must be an absolute path',
    ]);
    expect(
      complaints({ kind: 'postgres', user: 'u', database: 'd', passwordFile: '/run/p', password: 'x' })[0],
    ).to.contain('password');
    expect(complaints({ kind: 'mysql' })[0]).to.match(/^kind: /);
  });

  it('is none where nothing is said, and then there is nothing to do', () => {
    expect(dataSyncOf(dataSyncSchema.parse(undefined))).to.equal(null);
  });
});
