/** The load balancer with a real Envoy, by delta and by state of the world: who gets which request, and what fails. */
import { transportSettingsSchema } from '../../blueprints/transport-settings';
import { expect } from 'chai';
import { pino } from 'pino';
import { RefusedError, StaleEpochError, type CellShare } from '../../blueprints/records';
import type { Instance } from '../../blueprints/schema';
import { startControlPlane, type ControlPlane } from '../../envoy/control-plane';
import { TrafficClient } from '../../envoy/traffic-client';
import { releasePorts, reservePorts } from '../../local/ports';
import { waitUntil } from '../../local/wait';
import { serviceDocument } from '../support/documents';
import { startEnvoy, type EnvoyProxy } from '../support/envoy-proxy';
import { cellRecord, MemoryTrafficStore } from '../support/memory-traffic-store';
import { send, Upstreams } from '../support/upstreams';

const log = pino({ level: process.env.LOG_LEVEL ?? 'silent' });

for (const apiType of ['DELTA_GRPC', 'GRPC'] as const) {
  describe(`Traffic through Envoy by ${apiType}`, function () {
    this.timeout(60_000);
    let store: MemoryTrafficStore;
    let upstreams: Upstreams;
    let controlPlane: ControlPlane;
    let client: TrafficClient;
    let envoy: EnvoyProxy;
    let port: number;
    let keys = 0;

    beforeEach(async () => {
      [port] = (await reservePorts(1)) as [number];
      store = new MemoryTrafficStore();
      upstreams = new Upstreams();
      const instances = new Map<string, Instance[]>();
      for (const cell of ['shop-a', 'shop-b', 'shop-a-understudy-1'])
        instances.set(cell, await upstreams.start(cell, 2));
      store.add(serviceDocument({ listener: { port }, healthCheck: { path: '/healthz', intervalMs: 1000 } }), [
        cellRecord('shop-a', instances.get('shop-a')!),
        cellRecord('shop-b', instances.get('shop-b')!),
        cellRecord('shop-a-understudy-1', instances.get('shop-a-understudy-1')!, {
          role: 'synthetic',
          state: 'warming',
          sourceCell: 'shop-a',
        }),
      ]);
      controlPlane = await start('127.0.0.1:0', '127.0.0.1:0');
      client = new TrafficClient(`127.0.0.1:${controlPlane.trafficPort}`);
      envoy = await startEnvoy('proxy-1', `127.0.0.1:${controlPlane.xdsPort}`, apiType);
      await waitUntil(async () => (await send(port, 1)).ok === 1, { withinMs: 15_000, what: 'Envoy serves the shop' });
      upstreams.hits.clear();
    });

    afterEach(async function () {
      // What Envoy saw is what explains a failure.
      if (this.currentTest?.state === 'failed') {
        const seen = [...(await envoy.stats('cluster.shop.'))].filter(([, value]) => value > 0);
        this.currentTest.err!.message += `\n${seen.map(([name, value]) => `${name}: ${value}`).join('\n')}\n${envoy.log()}`;
      }
      client.close();
      await envoy.stop();
      await controlPlane.close();
      upstreams.stop();
      releasePorts([port]);
    });

    const start = (xdsAddress: string, trafficAddress: string): Promise<ControlPlane> =>
      startControlPlane(
        store,
        {
          xdsAddress,
          trafficAddress,
          loadReportIntervalMs: 200,
          acknowledgeTimeoutMs: 5000,
          processes: 1,
          transport: transportSettingsSchema.parse({}),
        },
        log,
      );
    const order = { service: 'shop', reason: 'test', by: 'tester' };
    const key = (): string => `key-${(keys += 1)}`;
    const apply = (epoch: number, split: [string, number, number?][]) =>
      client.applySplit({
        ...order,
        expectedEpoch: epoch,
        split: split.map(([cell, shareBp, coverInstances = 0]): CellShare => ({ cell, shareBp, coverInstances })),
        idempotencyKey: key(),
      });

    it('follows the weights to the request within sampling error', async () => {
      const result = await apply(1, [
        ['shop-a', 5500],
        ['shop-b', 4000],
        ['shop-a-understudy-1', 500, 1],
      ]);
      expect(result.acknowledged).to.deep.equal(['proxy-1']);
      expect(result.refused.concat(result.pending as never[])).to.deep.equal([]);
      // New hosts take part once their first health check has passed.
      await waitUntil(async () => (await send(port, 100)) && upstreams.ofCell('shop-a-understudy-1') > 0, {
        withinMs: 5000,
        what: 'the synthetic cell gets requests',
      });
      upstreams.hits.clear();
      const answers = await send(port, 4000);
      expect(answers.failed, answers.failures[0]).to.equal(0);
      expect(upstreams.ofCell('shop-a')).to.be.closeTo(2200, 40);
      expect(upstreams.ofCell('shop-b')).to.be.closeTo(1600, 40);
      expect(upstreams.ofCell('shop-a-understudy-1')).to.be.closeTo(200, 20);
      expect(upstreams.hits.has('shop-a-understudy-1-2'), 'cover takes no request').to.equal(false);
    });

    it('gives an armed cell exactly the share that is lost when half of the source dies, without a failed request', async () => {
      await client.armCell({ ...order, cell: 'shop-a-understudy-1', idempotencyKey: key() });
      const armed = await store.traffic('shop');
      expect(armed!.split).to.deep.include({ cell: 'shop-a-understudy-1', shareBp: 0, coverInstances: 2 });
      await waitUntil(async () => (await envoy.stat('cluster.shop.membership_healthy')) === 6, {
        withinMs: 10_000,
        what: 'all six instances are healthy',
      });
      const before = await send(port, 500);
      expect(before.failed).to.equal(0);
      expect(upstreams.ofCell('shop-a-understudy-1')).to.equal(0);

      upstreams.kill('shop-a-1');
      const during = await send(port, 500);
      await waitUntil(async () => (await envoy.stat('cluster.shop.membership_healthy')) === 5, {
        withinMs: 10_000,
        what: 'Envoy sees that the instance is dead',
      });
      upstreams.hits.clear();
      const after = await send(port, 4000);
      expect(during.failed + after.failed, [...during.failures, ...after.failures][0]).to.equal(0);
      expect(upstreams.ofCell('shop-a-understudy-1')).to.be.closeTo(1000, 120);
      expect(upstreams.ofCell('shop-a')).to.be.closeTo(1000, 120);
      expect(upstreams.ofCell('shop-b')).to.be.closeTo(2000, 120);
    });

    it('measures per cell what Envoy itself counts', async () => {
      await apply(1, [
        ['shop-a', 7000],
        ['shop-b', 3000],
      ]);
      const reported = async (): Promise<number> =>
        (await client.getTraffic('shop')).cells.reduce((sum, cell) => sum + cell.requestsTotal, 0);
      const counted = (): Promise<number> => envoy.stat('cluster.shop.upstream_rq_total');
      // Envoy loses the first interval of a new cluster: compare from when reports have begun, and caught up.
      await waitUntil(async () => (await send(port, 1)) && (await reported()) > 0, {
        withinMs: 10_000,
        what: 'load reports come',
      });
      await waitUntil(
        async () => (await client.getTraffic('shop')).cells.every((c) => c.requestsTotal === 0 || c.ageMs > 2000),
        { withinMs: 10_000, what: 'the load reports have caught up' },
      );
      const lost = (await counted()) - (await reported());
      // By cell, what was reported beyond what came since the test began: of the first requests, or less for those lost.
      const beyond = async (): Promise<Record<string, number>> =>
        Object.fromEntries(
          (await client.getTraffic('shop')).cells.map((c) => [c.cell, c.requestsTotal - upstreams.ofCell(c.cell)]),
        );
      const before = await beyond();
      await send(port, 2000);
      await waitUntil(async () => (await counted()) - (await reported()) === lost, {
        withinMs: 10_000,
        what: `counters and reports, ${lost} apart before, are as far apart after 2000 requests`,
      });
      const view = await client.getTraffic('shop');
      expect(view.epoch).to.equal(2);
      expect(view.proxies).to.deep.equal(['proxy-1']);
      for (const cell of ['shop-a', 'shop-b']) {
        const figures = view.cells.find((c) => c.cell === cell)!;
        expect(figures.measured).to.equal(true);
        expect(figures.errorsTotal).to.equal(0);
      }
      expect(await beyond(), 'each cell is told exactly what it has got').to.deep.equal(before);
    });

    it('reaches one cell alone by header, also one that carries no share', async () => {
      const answers = await send(port, 50, { headers: { 'x-understudy-cell': 'shop-a-understudy-1' } });
      expect(answers.failed, answers.failures[0]).to.equal(0);
      expect(upstreams.ofCell('shop-a-understudy-1')).to.equal(50);
      expect(await envoy.stat('cluster.shop|shop-a-understudy-1.upstream_rq_total')).to.equal(50);
    });

    it('keeps its split while the control plane is away and is sent nothing again when it is back', async () => {
      await apply(1, [
        ['shop-a', 2000],
        ['shop-b', 8000],
      ]);
      const { xdsPort, trafficPort } = controlPlane;
      await controlPlane.close();
      upstreams.hits.clear();
      const away = await send(port, 1000);
      expect(away.failed).to.equal(0);
      expect(upstreams.ofCell('shop-a')).to.be.closeTo(200, 20);

      controlPlane = await start(`127.0.0.1:${xdsPort}`, `127.0.0.1:${trafficPort}`);
      await waitUntil(() => controlPlane.xds.proxies().length === 1, { withinMs: 15_000, what: 'Envoy is back' });
      const result = await apply(2, [
        ['shop-a', 4000],
        ['shop-b', 6000],
      ]);
      expect(result.acknowledged).to.deep.equal(['proxy-1']);
      expect(controlPlane.xds.counts.nacks).to.equal(0);
      // By delta only the step itself travels; state of the world has to tell everything once more.
      if (apiType === 'DELTA_GRPC') expect(controlPlane.xds.counts.responses).to.equal(1);
      upstreams.hits.clear();
      expect((await send(port, 1000)).failed).to.equal(0);
      expect(upstreams.ofCell('shop-a')).to.be.closeTo(400, 30);
    });

    it('refuses a stale epoch, a split that does not add up, and removal of what carries a share', async () => {
      await apply(1, [
        ['shop-a', 6000],
        ['shop-b', 4000],
      ]);
      const rejection = async (attempt: Promise<unknown>): Promise<unknown> =>
        attempt.then(
          () => null,
          (e: unknown) => e,
        );
      const stale = await rejection(apply(1, [['shop-a', 10_000]]));
      expect(stale).to.be.instanceOf(StaleEpochError).and.include({ expected: 1, actual: 2 });
      expect(await rejection(apply(2, [['shop-a', 9_999]]))).to.be.instanceOf(RefusedError);
      const removal = await rejection(client.removeCell({ ...order, cell: 'shop-a', idempotencyKey: key() }));
      expect(removal).to.be.instanceOf(RefusedError);
      expect((removal as Error).message).to.contain('carries 6000 bp');
      const arming = await rejection(client.armCell({ ...order, cell: 'shop-a', idempotencyKey: key() }));
      expect(arming).to.be.instanceOf(RefusedError);
      expect(await rejection(client.getTraffic('nowhere'))).to.be.instanceOf(RefusedError);
    });
  });
}
