/** What callers of the traffic API can rely on when things go wrong: keys, deadlines, limits, faults, the end of the process. */
import { credentials, makeGenericClientConstructor, status, type Client, type ServiceError } from '@grpc/grpc-js';
import { expect } from 'chai';
import { Writable } from 'node:stream';
import { pino } from 'pino';
import type { CellShare, TrafficChange } from '../../blueprints/records';
import { startControlPlane, type ControlPlane } from '../../envoy/control-plane';
import { trafficService } from '../../envoy/protos';
import {
  KeyReusedError,
  LeasedError,
  TrafficClient,
  TrafficUnavailableError,
  UnpublishedError,
} from '../../envoy/traffic-client';
import { readFieldViolations } from '../../envoy/traffic-errors';
import { waitUntil } from '../../local/wait';
import { serviceDocument } from '../support/documents';
import { cellRecord, MemoryTrafficStore } from '../support/memory-traffic-store';
import { XdsClient } from '../support/xds-client';

/** Does what the test says before it answers. */
class BentStore extends MemoryTrafficStore {
  fault: Error | undefined;
  afterCommit = (): void => undefined;

  override async appliedChange(service: string, idempotencyKey: string) {
    if (this.fault) throw this.fault;
    return super.appliedChange(service, idempotencyKey);
  }
  override async changeTraffic(change: TrafficChange) {
    const applied = await super.changeTraffic(change);
    this.afterCommit();
    return applied;
  }
}

type Answer = { error: ServiceError | null; answer?: { outcome: string; pending: string[] } };
type Unary = (request: object, options: object, callback: (error: ServiceError | null, answer: never) => void) => void;

describe('A caller of the traffic API', function () {
  this.timeout(60_000);
  let store: BentStore;
  let controlPlane: ControlPlane;
  let client: TrafficClient;
  let raw: Client & Record<string, Unary>;
  let logged: string;
  const proxies: XdsClient[] = [];

  const start = async (limits: object = {}): Promise<void> => {
    store = new BentStore();
    logged = '';
    const sink = new Writable({ write: (chunk, _, done) => ((logged += String(chunk)), done()) });
    const at = (port: number) => [{ name: `i-${port}`, address: '127.0.0.1', port }];
    store.add(serviceDocument(), [cellRecord('shop-a', at(20101)), cellRecord('shop-b', at(20102))]);
    const settings = { xdsAddress: '127.0.0.1:0', trafficAddress: '127.0.0.1:0', limits };
    controlPlane = await startControlPlane(store, settings, pino({ level: 'info' }, sink));
    const address = `127.0.0.1:${controlPlane.trafficPort}`;
    client = new TrafficClient(address);
    raw = new (makeGenericClientConstructor(trafficService(), 'Traffic'))(
      address,
      credentials.createInsecure(),
    ) as typeof raw;
  };
  afterEach(async () => {
    for (const proxy of proxies.splice(0)) proxy.close();
    client.close();
    raw.close();
    await controlPlane.close();
  });

  /** A proxy that takes what there is, and answers to nothing that comes later. */
  const connectStaller = async (): Promise<XdsClient> => {
    const proxy = new XdsClient(controlPlane.xdsPort, 'delta', 'staller');
    proxies.push(proxy);
    proxy.send('cluster', { resource_names_subscribe: ['shop'] });
    proxy.send('endpoints', { resource_names_subscribe: ['shop'] });
    await proxy.accept('cluster');
    await proxy.accept('endpoints');
    await waitUntil(async () => (await controlPlane.replica.standing('shop', 0)).acknowledged.includes('staller'), {
      withinMs: 5000,
      what: 'it is known to hold the split',
    });
    return proxy;
  };
  const split = (share: number): CellShare[] => [
    { cell: 'shop-a', shareBp: share, coverInstances: 0 },
    { cell: 'shop-b', shareBp: 10_000 - share, coverInstances: 0 },
  ];
  const change = (idempotencyKey: string, share: number, expectedEpoch = 1) => ({
    ...{ service: 'shop', reason: 'test', by: 'tester', idempotencyKey, expectedEpoch, split: split(share) },
  });
  const failureOf = (attempt: Promise<unknown>): Promise<unknown> =>
    attempt.then(
      () => undefined,
      (error: unknown) => error,
    );
  const codeOf = (error: unknown): string => status[((error as Error).cause as ServiceError).code];

  describe('with a key', () => {
    it('is refused another request under it, with the fields that differ, and told what the first one made', async () => {
      await start();
      await client.applySplit(change('one', 9000));
      const refused = await failureOf(client.applySplit({ ...change('one', 8000), by: 'somebody' }));
      expect(refused).to.be.instanceOf(KeyReusedError);
      expect(codeOf(refused)).to.equal('ALREADY_EXISTS');
      const details = ((refused as Error).cause as ServiceError).metadata.get('grpc-status-details-bin')[0] as Buffer;
      expect(readFieldViolations(details).map(({ field }) => field)).to.deep.equal(['idempotency_key', 'split', 'by']);
      expect(await failureOf(client.drainCell({ ...change('one', 0), cell: 'shop-a' }))).to.be.instanceOf(
        KeyReusedError,
      );
      expect(store.states.get('shop')).to.deep.include({ epoch: 2, split: split(9000) });
      expect(await client.awaitChange('shop', 'one')).to.deep.include({ epoch: 2, split: split(9000) });
      expect(codeOf(await failureOf(client.awaitChange('shop', 'another')))).to.equal('NOT_FOUND');
    });

    it('may repeat its request in other words, in another order, and with another patience', async () => {
      await start();
      await client.applySplit(change('one', 9000));
      const again = { ...change('one', 9000), split: split(9000).reverse(), reason: 'again', waitMs: 1234 };
      expect(await client.applySplit(again)).to.deep.include({ epoch: 2 });
    });
  });

  describe('with a lease on the split', () => {
    it('keeps it when somebody changes the split, and learns who has it when it wants one itself', async () => {
      await start();
      await client.applySplit({ ...change('one', 9000), leaseMs: 60_000 });
      const byAnother = await client.applySplit({ ...change('two', 8000, 2), by: 'ann' });
      expect(byAnother.lease).to.deep.include({ holder: 'tester', epoch: 3 });
      const refused = await failureOf(client.applySplit({ ...change('three', 7000, 3), by: 'ann', leaseMs: 5000 }));
      expect(refused).to.be.instanceOf(LeasedError);
      expect(codeOf(refused)).to.equal('FAILED_PRECONDITION');
      expect((refused as Error).message).to.contain('leased to tester');
      expect((await client.renewLease('shop', 'tester')).epoch).to.equal(3);
      const over = { ...change('four', 7000, 3), by: 'ann', leaseMs: 5000, releaseLease: true };
      expect((await client.applySplit(over)).lease).to.deep.include({ holder: 'ann', epoch: 4 });
      const end = { ...change('five', 6000, 4), releaseLease: true };
      expect(await client.applySplit(end)).not.to.have.property('lease');
    });
  });

  it('is answered before its deadline with who is missing, however long it wanted to wait', async () => {
    await start();
    await connectStaller();
    const request = {
      ...{ service: 'shop', reason: 'test', by: 'tester', idempotency_key: 'one', expected_epoch: 1 },
      split: split(9000).map(({ cell, shareBp }) => ({ cell, share_bp: shareBp })),
      wait_ms: 60_000,
    };
    const { error, answer } = await new Promise<Answer>((resolve) =>
      raw.ApplySplit!.call(raw, request, { deadline: Date.now() + 4000 }, (failed, given) =>
        resolve({ error: failed, answer: given }),
      ),
    );
    expect(error).to.equal(null);
    expect(answer).to.deep.include({ outcome: 'PARTIAL', pending: ['staller'] });
  });

  it('is refused while too many of its changes are waited for, and nothing is changed', async () => {
    await start({ changesPerClient: 1 });
    const staller = await connectStaller();
    const first = client.applySplit({ ...change('one', 9000), waitMs: 30_000 });
    const sent = await staller.take('endpoints');
    const refused = await failureOf(client.applySplit(change('two', 8000, 2)));
    expect(refused).to.be.instanceOf(TrafficUnavailableError);
    expect(codeOf(refused)).to.equal('RESOURCE_EXHAUSTED');
    expect(store.states.get('shop')!.epoch).to.equal(2);
    staller.ack(sent);
    expect((await first).outcome).to.equal('COMPLETE');
    const second = client.applySplit(change('two', 8000, 2));
    await staller.accept('endpoints');
    expect((await second).outcome).to.equal('COMPLETE');
  });

  it('is told that its change is made but cannot be published, and finishes it by the same call', async () => {
    await start();
    const shop = store.allServices[0]!;
    const good = shop.spec;
    store.add(serviceDocument({ name: 'bank', listener: { port: 10099 }, safeSplit: { 'bank-a': 10_000 } }), [
      cellRecord('bank-a', [{ name: 'i', address: '127.0.0.1', port: 20109 }], { service: 'bank' }),
    ]);
    // Between the commit and its publication somebody gives the service another's address.
    store.afterCommit = () => (shop.spec = { ...good, listener: { ...good.listener, port: 10099 } });
    const unpublished = await failureOf(client.applySplit(change('one', 9000)));
    expect(unpublished).to.be.instanceOf(UnpublishedError).and.instanceOf(TrafficUnavailableError);
    expect(codeOf(unpublished)).to.equal('UNAVAILABLE');
    expect((unpublished as Error).message)
      .to.contain('epoch 2 of shop is committed')
      .and.contain('already that of service bank');
    // Another change is no help, and no fault of the split.
    expect(codeOf(await failureOf(client.applySplit(change('two', 8000, 2))))).to.equal('FAILED_PRECONDITION');
    shop.spec = good;
    expect(await client.applySplit(change('one', 9000))).to.deep.include({ epoch: 2, outcome: 'COMPLETE' });
  });

  it('is told our own faults as such, with their stack in the log alone, and a store that fails as that', async () => {
    await start();
    store.fault = new TypeError('undefined is not a function');
    const fault = await failureOf(client.applySplit(change('one', 9000)));
    expect(codeOf(fault)).to.equal('INTERNAL');
    expect((fault as Error).message).not.to.contain('undefined is not');
    expect(logged).to.contain('undefined is not a function').and.contain('envoy-traffic-callers.test');
    store.fault = Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:1'), { code: 'ECONNREFUSED' });
    expect(codeOf(await failureOf(client.applySplit(change('one', 9000))))).to.equal('UNAVAILABLE');
    store.fault = Object.assign(new Error('column "x" does not exist'), { code: '42703' });
    expect(codeOf(await failureOf(client.applySplit(change('one', 9000))))).to.equal('INTERNAL');
  });

  it('is told by its watch that the control plane stops, at once and not by its end', async () => {
    await start();
    const seen: string[] = [];
    const watching = failureOf(
      (async () => {
        for await (const event of client.watch('shop')) seen.push(event.kind);
      })(),
    );
    await waitUntil(() => seen.length > 0, { withinMs: 5000, what: 'it is served' });
    await controlPlane.close();
    const ended = await watching;
    expect(codeOf(ended)).to.equal('UNAVAILABLE');
    expect((ended as Error).message).to.contain('this control plane is stopping');
  });
});
