/**
 * A cell leaves a real Envoy's traffic while it still works on requests: by the load reports alone its drain and its
 * removal know when it is empty. No request may fail from the first test to the last.
 */
import { expect } from 'chai';
import { pino } from 'pino';
import type { CellShare } from '../../blueprints/records';
import { transportSettingsSchema } from '../../blueprints/transport-settings';
import { startControlPlane, type ControlPlane } from '../../envoy/control-plane';
import { StillCarryingError, TrafficClient } from '../../envoy/traffic-client';
import { releasePorts, reservePorts } from '../../local/ports';
import { waitUntil } from '../../local/wait';
import { serviceDocument } from '../support/documents';
import { startEnvoy, type EnvoyProxy } from '../support/envoy-proxy';
import { cellRecord, MemoryTrafficStore } from '../support/memory-traffic-store';
import { OpenLoad } from '../support/open-load';
import { send, Upstreams } from '../support/upstreams';

describe('A cell that leaves Envoy with requests in flight', function () {
  this.timeout(30_000);
  let store: MemoryTrafficStore;
  let upstreams: Upstreams;
  let controlPlane: ControlPlane;
  let client: TrafficClient;
  let envoy: EnvoyProxy;
  let load: OpenLoad;
  let held: ReturnType<Upstreams['hold']> | undefined;
  let port: number;
  let keys = 0;

  before(async () => {
    [port] = (await reservePorts(1)) as [number];
    store = new MemoryTrafficStore();
    upstreams = new Upstreams();
    // The instances live in this process: when it is busy with its own for a moment, that is no death of theirs.
    store.add(serviceDocument({ listener: { port }, healthCheck: { path: '/healthz', intervalMs: 10_000 } }), [
      cellRecord('shop-a', await upstreams.start('shop-a', 1)),
      cellRecord('shop-b', await upstreams.start('shop-b', 1)),
    ]);
    controlPlane = await startControlPlane(
      store,
      {
        xdsAddress: '127.0.0.1:0',
        trafficAddress: '127.0.0.1:0',
        loadReportIntervalMs: 200,
        acknowledgeTimeoutMs: 5000,
        processes: 1,
        transport: transportSettingsSchema.parse({}),
      },
      pino({ level: process.env.LOG_LEVEL ?? 'silent' }),
    );
    client = new TrafficClient(`127.0.0.1:${controlPlane.trafficPort}`);
    envoy = await startEnvoy('proxy-1', `127.0.0.1:${controlPlane.xdsPort}`);
    await waitUntil(async () => (await envoy.stat('cluster.shop.membership_healthy')) === 2, {
      withinMs: 20_000,
      what: 'Envoy serves the shop',
    });
    load = new OpenLoad(port, 20);
  });

  /** Both cells carry, Envoy serves both, and has reported so. */
  beforeEach(async () => {
    await apply(5000);
    await waitUntil(async () => (await envoy.stat('cluster.shop.membership_healthy')) === 2, {
      withinMs: 10_000,
      what: 'both cells are healthy at Envoy',
    });
    upstreams.hits.clear();
    await waitUntil(() => upstreams.ofCell('shop-a') > 0, { withinMs: 10_000, what: 'shop-a gets requests' });
    await waitUntil(async () => (await ofA())?.measured, { withinMs: 10_000, what: 'load reports cover shop-a' });
  });

  afterEach(function () {
    held?.release();
    if (this.currentTest?.state === 'failed') this.currentTest.err!.stack += `\n${envoy.log()}`;
  });

  after(async () => {
    await load?.stop();
    client?.close();
    await envoy?.stop();
    await controlPlane?.close();
    upstreams?.stop();
    releasePorts([port]);
  });

  const ofA = async () => (await client.getTraffic('shop')).cells.find(({ cell }) => cell === 'shop-a');
  const order = (waitMs: number) => {
    const idempotencyKey = `key-${(keys += 1)}`;
    return { service: 'shop', cell: 'shop-a', reason: 'test', by: 'tester', waitMs, idempotencyKey };
  };
  const apply = async (share: number): Promise<void> => {
    const split: CellShare[] = [
      { cell: 'shop-a', shareBp: share, coverInstances: 0 },
      { cell: 'shop-b', shareBp: 10_000 - share, coverInstances: 0 },
    ];
    const { cell: _, ...rest } = order(5000);
    const result = await client.applySplit({ ...rest, expectedEpoch: (await store.traffic('shop'))!.epoch, split });
    expect(result).to.deep.include({ outcome: 'COMPLETE', acknowledged: ['proxy-1'] });
  };
  /** From now on shop-a keeps what it is sent; resolves once it has something, and the load reports say so. */
  const holdSome = async () => {
    const some = (held = upstreams.hold('shop-a'));
    await waitUntil(async () => some.waiting() > 0 && (await ofA())!.requestsInFlight > 0, {
      withinMs: 10_000,
      what: 'load reports show what shop-a holds',
    });
    return some;
  };

  it('is drained only when the request that it holds has ended, and is sent nothing new meanwhile', async () => {
    const holding = await holdSome();
    const draining = { ...order(500), to: 'shop-b' };
    const first = await client.drainCell(draining);
    expect(first.applied).to.deep.include({ outcome: 'COMPLETE', acknowledged: ['proxy-1'] });
    expect(first.drained, first.words).to.equal(false);
    const waiting = holding.waiting();
    // What it is told is as old as the last load report.
    const early = await waitUntil(
      async () => {
        const told = await client.drainCell(draining);
        expect(told.drained, told.words).to.equal(false);
        return told.requestsInFlight === waiting && told;
      },
      {
        withinMs: 8000,
        what: `the drain tells of the ${waiting} requests that shop-a holds`,
        instead: () => first.words,
      },
    );
    expect(early.words).to.contain(`shop-a has ${waiting} requests in flight`);
    const before = upstreams.ofCell('shop-b');
    await waitUntil(() => upstreams.ofCell('shop-b') >= before + 20, { withinMs: 10_000, what: 'shop-b takes all' });
    expect(holding.waiting()).to.equal(waiting);

    let isAnswered = false;
    const again = client.drainCell({ ...draining, waitMs: 10_000 }).finally(() => (isAnswered = true));
    // Load reports go on coming, each with the held requests in it.
    const { requestsTotal } = (await client.getTraffic('shop')).cells.find(({ cell }) => cell === 'shop-b')!;
    await waitUntil(
      async () =>
        (await client.getTraffic('shop')).cells.find(({ cell }) => cell === 'shop-b')!.requestsTotal >=
        requestsTotal + 20,
      { withinMs: 10_000, what: 'more load reports have come' },
    );
    expect(isAnswered, 'the drain waits for what is held').to.equal(false);
    holding.release();
    const late = await again;
    expect(late, late.words).to.deep.include({ drained: true, requestsInFlight: 0, unreported: [] });
    expect(late.applied.epoch, 'the same change, made once').to.equal(early.applied.epoch);
  });

  it('is not removed while load reports show traffic of it, then goes, and comes back', async () => {
    const holding = await holdSome();
    await apply(0);
    const epoch = (await store.traffic('shop'))!.epoch;
    const refusal = await client.removeCell(order(1000)).then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(refusal).to.be.instanceOf(StillCarryingError);
    expect((refusal as Error).message).to.match(/shop-a of shop is not removed: shop-a has \d+ requests in flight/);
    expect((await store.traffic('shop'))!.epoch, 'nothing was changed').to.equal(epoch);
    expect(await envoy.stat('cluster.shop.membership_total')).to.equal(2);

    const removing = client.removeCell(order(10_000));
    holding.release();
    const removed = await removing;
    expect(removed).to.deep.include({ outcome: 'COMPLETE', acknowledged: ['proxy-1'] });
    expect(removed.split).to.deep.equal([{ cell: 'shop-b', shareBp: 10_000, coverInstances: 0 }]);
    await waitUntil(async () => (await envoy.stat('cluster.shop.membership_total')) === 1, {
      withinMs: 10_000,
      what: 'Envoy no longer has the cell',
    });
    upstreams.hits.clear();
    expect((await send(port, 50)).ok).to.equal(50);
    expect(upstreams.ofCell('shop-a')).to.equal(0);
    await apply(5000);
    await waitUntil(() => upstreams.ofCell('shop-a') > 0, { withinMs: 10_000, what: 'the cell that returns is used' });
  });

  it('has failed no request, nor had Envoy try one again, from the first test to here', async () => {
    await load.stop();
    expect(load.failures).to.deep.equal([]);
    expect(load.sent).to.be.greaterThan(100);
    expect(await envoy.stat('cluster.shop.upstream_rq_retry')).to.equal(0);
  });
});
