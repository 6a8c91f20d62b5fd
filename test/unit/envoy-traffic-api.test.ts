/** The traffic API on a real gRPC port over a store in memory, with proxies that follow a script: what it answers, and what it must not do. */
import { makeGenericClientConstructor, Server, ServerCredentials, credentials, status } from '@grpc/grpc-js';
import type { Client, ClientDuplexStream, ServiceError } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { expect } from 'chai';
import { service as healthService } from 'grpc-health-check';
import { dirname, join } from 'node:path';
import { pino } from 'pino';
import { automaticMethods } from '../../blueprints/control-plane-settings';
import { FleetStoppedError, type CellShare } from '../../blueprints/records';
import { startControlPlane, type ControlPlane } from '../../envoy/control-plane';
import { trafficService } from '../../envoy/protos';
import { FleetWait } from '../../envoy/replicas/fleet-wait';
import { Replica } from '../../envoy/replicas/replica';
import { TrafficApi, type TrafficApiOptions } from '../../envoy/traffic-api';
import { TrafficClient, type TrafficEvent } from '../../envoy/traffic-client';
import { readFieldViolations } from '../../envoy/traffic-errors';
import { waitUntil } from '../../local/wait';
import { serviceDocument } from '../support/documents';
import { cellRecord, MemoryTrafficStore } from '../support/memory-traffic-store';
import { XdsClient } from '../support/xds-client';

const log = pino({ level: process.env.LOG_LEVEL ?? 'silent' });

/** Counts who listens, and remembers which changes were read. */
class WatchedStore extends MemoryTrafficStore {
  listening = 0;
  readonly read: number[] = [];

  override onChange(listener: (service: string | null) => void): () => void {
    this.listening += 1;
    const stop = super.onChange(listener);
    return () => {
      this.listening -= 1;
      stop();
    };
  }

  override async splitChanges(service: string, limit = 100, afterEpoch?: number) {
    if (afterEpoch !== undefined) this.read.push(afterEpoch);
    return super.splitChanges(service, limit, afterEpoch);
  }
}

type Unary = (
  request: object,
  options: { deadline: number },
  callback: (error: ServiceError | null, answer?: unknown) => void,
) => unknown;

describe('The traffic API', function () {
  let store: WatchedStore;
  let controlPlane: ControlPlane;
  let client: TrafficClient;
  let raw: Client & Record<string, Unary>;
  const proxies: XdsClient[] = [];
  let keys = 0;

  const start = async (steps: object = {}): Promise<void> => {
    store = new WatchedStore();
    const at = (port: number) => [{ name: `i-${port}`, address: '127.0.0.1', port }];
    store.add(serviceDocument({ steps }), [
      cellRecord('shop-a', at(20101)),
      cellRecord('shop-b', at(20102)),
      cellRecord('shop-c', at(20103)),
    ]);
    const settings = { xdsAddress: '127.0.0.1:0', trafficAddress: '127.0.0.1:0', loadReportIntervalMs: 200 };
    controlPlane = await startControlPlane(store, settings, log);
    client = new TrafficClient(`127.0.0.1:${controlPlane.trafficPort}`);
    const Stub = makeGenericClientConstructor(trafficService(), 'Traffic');
    raw = new Stub(`127.0.0.1:${controlPlane.trafficPort}`, credentials.createInsecure()) as typeof raw;
  };
  afterEach(async () => {
    for (const proxy of proxies.splice(0)) proxy.close();
    client.close();
    raw.close();
    await controlPlane.close();
  });

  const connect = async (node: string): Promise<XdsClient> => {
    const proxy = new XdsClient(controlPlane.xdsPort, 'delta', node);
    proxies.push(proxy);
    proxy.send('cluster', { resource_names_subscribe: ['shop'] });
    proxy.send('endpoints', { resource_names_subscribe: ['shop'] });
    await proxy.accept('cluster');
    await proxy.accept('endpoints');
    await waitUntil(async () => (await controlPlane.replica.standing('shop', 0)).acknowledged.includes(node), {
      withinMs: 5000,
      what: `${node} is known to hold the split`,
    });
    return proxy;
  };
  const split = (share: number, ...more: CellShare[]): CellShare[] => [
    { cell: 'shop-a', shareBp: share, coverInstances: 0 },
    { cell: 'shop-b', shareBp: 10_000 - share, coverInstances: 0 },
    ...more,
  ];
  const order = () => ({ service: 'shop', reason: 'test', by: 'tester', idempotencyKey: `key-${(keys += 1)}` });
  const apply = (expectedEpoch: number, share: number, ...more: CellShare[]) =>
    client.applySplit({ ...order(), expectedEpoch, split: split(share, ...more), waitMs: 10_000 });
  const call = (method: string, request: object): Promise<ServiceError | undefined> =>
    new Promise((resolve) =>
      raw[method]!.call(raw, request, { deadline: Date.now() + 10_000 }, (error) => resolve(error ?? undefined)),
    );

  describe('when a proxy refuses a split', () => {
    it('holds it if the service says so, and names proxy, resource and reason', async () => {
      await start({ onRefusal: 'hold' });
      const [good, bad] = [await connect('good'), await connect('bad')];
      const applying = apply(1, 9000);
      bad.nack(await bad.take('endpoints'), 'no such weights');
      await good.accept('endpoints');
      expect(await applying).to.deep.include({
        outcome: 'HELD',
        epoch: 2,
        rolledBackEpoch: 0,
        acknowledged: ['good'],
        refused: [{ node: 'bad', resource: 'endpoints shop', reason: 'no such weights' }],
      });
      expect(store.states.get('shop')).to.deep.include({ epoch: 2, split: split(9000) });
    });

    it('takes nothing back for a later caller whose change is made already', async () => {
      await start();
      const bad = await connect('bad');
      const armed = { cell: 'shop-c', shareBp: 0, coverInstances: 1 };
      const applying = apply(1, 9000, armed);
      const sent = await bad.take('endpoints');
      // Stopped in mid-step: the refusal is told, the split stays.
      await client.stop('ann', 'odd');
      bad.nack(sent, 'no such weights');
      expect(await applying).to.deep.include({ outcome: 'HELD', epoch: 2 });
      await client.resume('ann', 'fine');
      const again = await client.armCell({ ...order(), cell: 'shop-c', waitMs: 300 });
      expect(again).to.deep.include({ outcome: 'HELD', epoch: 2, rolledBackEpoch: 0 });
      expect(store.states.get('shop')!.epoch).to.equal(2);
    });
  });

  it('waits for no more than the share of proxies that the service asks for, and says who is left', async () => {
    await start({ acknowledgedShare: 0.6 });
    const one = await connect('one');
    const two = await connect('two');
    await connect('silent');
    const applying = client.applySplit({ ...order(), expectedEpoch: 1, split: split(9000), waitMs: 600_000 });
    await Promise.all([one.accept('endpoints'), two.accept('endpoints')]);
    expect(await applying).to.deep.include({
      outcome: 'COMPLETE',
      acknowledged: ['one', 'two'],
      pending: ['silent'],
    });
  });

  describe('given a bad request, names the field and leaves the split as it is', () => {
    const change = { service: 'shop', by: 'tester', reason: 'test', idempotency_key: 'bad' };
    const apply = { ...change, expected_epoch: 1 };
    const a = { cell: 'shop-a', share_bp: 5000 };
    const b = { cell: 'shop-b', share_bp: 5000 };
    const good = { ...apply, split: [a, b] };
    const many = Array.from({ length: 1001 }, () => a);
    const stale = status.FAILED_PRECONDITION;
    const table: [what: string, method: string, request: object, field: string[] | status][] = [
      ['an unknown service', 'ApplySplit', { ...good, service: 'nowhere' }, status.NOT_FOUND],
      ['an unknown service', 'GetTraffic', { service: 'nowhere' }, status.NOT_FOUND],
      ['an unknown service', 'RenewLease', { service: 'nowhere', by: 'x' }, status.NOT_FOUND],
      ['a stale epoch', 'ApplySplit', { ...good, expected_epoch: 9 }, stale],
      ['an epoch beyond all numbers', 'ApplySplit', { ...good, expected_epoch: '18446744073709551615' }, stale],
      ['no service', 'ApplySplit', { ...good, service: '' }, ['service']],
      ['nobody who asks', 'ApplySplit', { ...good, by: '' }, ['by']],
      ['no key', 'ApplySplit', { ...good, idempotency_key: '' }, ['idempotency_key']],
      [
        "a key of the control plane's own",
        'ArmCell',
        { ...change, cell: 'shop-c', idempotency_key: 'roll-back/1' },
        ['idempotency_key'],
      ],
      ['a key too long to keep', 'ApplySplit', { ...good, idempotency_key: 'k'.repeat(3000) }, ['idempotency_key']],
      ['a reason too long', 'ApplySplit', { ...good, reason: 'r'.repeat(100_000) }, ['reason']],
      ['a zero character', 'ApplySplit', { ...good, reason: 'a\0b' }, ['reason']],
      ['a negative wait', 'ApplySplit', { ...good, wait_ms: -1 }, ['wait_ms']],
      ['an absurd wait', 'DrainCell', { ...change, cell: 'shop-a', wait_ms: 600_001 }, ['wait_ms']],
      ['a lease too short', 'ApplySplit', { ...good, lease_ms: 1 }, ['lease_ms']],
      ['no split', 'ApplySplit', apply, ['split']],
      ['shares that do not add up', 'ApplySplit', { ...apply, split: [a] }, ['split']],
      [
        'a negative share',
        'ApplySplit',
        { ...apply, split: [a, { ...b, share_bp: -1 }] },
        ['split[1].share_bp', 'split'],
      ],
      ['a cell twice', 'ApplySplit', { ...apply, split: [a, a] }, ['split[1].cell']],
      ['an unknown cell', 'ApplySplit', { ...apply, split: [a, { ...b, cell: 'shop-z' }] }, ['split[1].cell']],
      [
        'more cover than instances',
        'ApplySplit',
        { ...apply, split: [a, { ...b, cover_instances: 7 }] },
        ['split[1].cover_instances'],
      ],
      ['more cells than anybody has', 'ApplySplit', { ...apply, split: many }, ['split']],
      [
        'more faults than a status holds',
        'ApplySplit',
        { ...apply, split: many.slice(1) },
        Array.from({ length: 10 }, (_, i) => `split[${i + 1}].cell`),
      ],
      ['an unknown cell', 'ArmCell', { ...change, cell: 'shop-z' }, ['cell']],
      ['no cell', 'RemoveCell', change, ['cell']],
      ['itself as heir', 'DrainCell', { ...change, cell: 'shop-a', to: 'shop-a' }, ['to']],
      ['an unknown heir', 'DrainCell', { ...change, cell: 'shop-a', to: 'shop-z' }, ['to']],
      ['nobody who stops', 'Stop', { reason: 'odd' }, ['by']],
      ['no reason to resume', 'Resume', { by: 'ann' }, ['reason']],
    ];
    for (const [what, method, request, expected] of table) {
      it(`${method} with ${what}`, async () => {
        await start();
        const error = await call(method, request);
        expect(error, 'it is refused').not.to.equal(undefined);
        if (typeof expected === 'number') {
          expect(error!.code).to.equal(expected);
        } else {
          expect(status[error!.code], error!.details).to.equal('INVALID_ARGUMENT');
          const details = error!.metadata.get('grpc-status-details-bin')[0] as Buffer;
          expect(readFieldViolations(details).map(({ field }) => field)).to.deep.equal(expected);
          expect(error!.details).to.contain(`${expected[0]}: `);
        }
        expect(store.states.get('shop')).to.deep.include({ epoch: 1, split: split(5000) });
        expect(await store.fleetStop()).to.equal(undefined);
      });
    }
  });

  it('tells why it is stopped in any language, and lives on', async () => {
    await start();
    const reason = `Vorhersagen überschlagen sich 予測 ${'!'.repeat(20)}`;
    await client.stop('änne', reason);
    const refused: unknown = await apply(1, 9000).catch((error: unknown) => error);
    expect(refused).to.be.instanceOf(FleetStoppedError);
    expect((refused as FleetStoppedError).stop).to.deep.include({ by: 'änne', reason });
    expect((await client.getTraffic('shop')).stop).to.deep.include({ by: 'änne', reason });
  });

  it('does not remove a cell for a caller who has left', async () => {
    await start();
    // Connected without ever reporting its load: whether the cell is quiet is never known.
    const proxy = await connect('silent');
    const arming = client.armCell({ ...order(), cell: 'shop-c' });
    await proxy.accept('endpoints');
    await arming;
    const request = {
      service: 'shop',
      cell: 'shop-c',
      by: 'tester',
      reason: 'test',
      idempotency_key: 'leaves',
      wait_ms: 5000,
    };
    let hasCome = false;
    const read = store.appliedChange.bind(store);
    store.appliedChange = (service, key) => {
      hasCome ||= key === 'leaves';
      return read(service, key);
    };
    let leave = (): void => undefined;
    const left = new Promise<ServiceError | null>((resolve) => {
      const removing = raw.RemoveCell!.call(raw, request, { deadline: Date.now() + 20_000 }, resolve);
      leave = () => (removing as { cancel(): void }).cancel();
    });
    await waitUntil(() => hasCome, { withinMs: 5000, what: 'the call has come' });
    leave();
    expect((await left)?.code).to.equal(status.CANCELLED);
    proxy.close();
    await waitUntil(() => controlPlane.xds.proxies().length === 0, { withinMs: 5000, what: 'the proxy has gone' });
    // Nobody is connected: had the call gone on, the cell would be quiet now, and removed within a look.
    await client.removeCell({ ...order(), cell: 'shop-c', waitMs: 2000 });
    expect(store.applied.has('leaves')).to.equal(false);
  });

  describe('watched', () => {
    const commit = async (n: number, reason = 'test'): Promise<void> => {
      const { epoch } = store.states.get('shop')!;
      await store.changeTraffic({ ...order(), expectedEpoch: epoch, split: split(5000 + (n % 2)), reason });
    };

    it('forgets a watcher that leaves, whether it aborts or just reads no further', async () => {
      await start();
      const before = store.listening;
      const leave = new AbortController();
      for await (const event of client.watch('shop', { signal: leave.signal }))
        if (event.kind === 'progress') leave.abort();
      for await (const event of client.watch('shop', { loadsEveryMs: 100 })) if (event.kind === 'loads') break;
      for await (const event of client.watch('shop', { signal: leave.signal })) expect.fail(event.kind);
      await waitUntil(() => store.listening === before, { withinMs: 5000, what: 'nothing listens for them any more' });
    });

    it('reads no further than a slow watcher does, and tells it every change once it reads', async () => {
      const warnings: Error[] = [];
      const warned = (warning: Error): void => void warnings.push(warning);
      process.on('warning', warned);
      await start();
      const last = 430;
      for (let epoch = 2; epoch <= last; epoch += 1) await commit(epoch, 'x'.repeat(10_000));
      const stub = raw as unknown as { Watch: (request: object) => NodeJS.ReadableStream & { cancel(): void } };
      const slow = stub.Watch({ service: 'shop' });
      slow.on('error', () => undefined);
      const told: number[] = [];
      slow.on('data', ({ change }: { change?: { epoch: number } }) => {
        if (change) told.push(change.epoch);
        // One is read, and then nothing for now.
        if (told.length === 1) slow.pause();
      });
      await waitUntil(() => told.length > 0, { withinMs: 5000, what: 'the slow watcher is served' });
      // Another reads all of it meanwhile. What is read for it ends in 51, for the slow one in 1.
      const epochs = async (fromEpoch: number, stream: AsyncIterable<TrafficEvent>): Promise<number[]> => {
        const seen: number[] = [];
        for await (const event of stream) {
          if (event.kind === 'change') seen.push(event.change.epoch);
          if (seen.length === last - fromEpoch) break;
        }
        return seen;
      };
      expect(await epochs(51, client.watch('shop', { fromEpoch: 51 }))).to.have.length(last - 51);
      const forSlow = store.read.filter((epoch) => epoch % 100 <= 1);
      expect(Math.max(...forSlow)).to.be.below(200);
      slow.resume();
      await waitUntil(() => told.length === last - 1, { withinMs: 10_000, what: 'the slow watcher has caught up' });
      slow.cancel();
      expect(told).to.deep.equal(Array.from({ length: last - 1 }, (_, i) => i + 2));
      process.off('warning', warned);
      expect(warnings.map(({ message }) => message)).to.deep.equal([]);
    });
  });

  it('is listed by reflection and says by the health service that it serves', async () => {
    await start();
    const file = join(
      dirname(require.resolve('@grpc/reflection/package.json')),
      'build/proto/grpc/reflection/v1/reflection.proto',
    );
    const Reflection = makeGenericClientConstructor(
      loadSync(file)['grpc.reflection.v1.ServerReflection'] as never,
      'ServerReflection',
    );
    const reflection = new Reflection(`127.0.0.1:${controlPlane.trafficPort}`, credentials.createInsecure());
    type Listed = { listServicesResponse: { service: { name: string }[] } };
    const stream = (
      reflection as unknown as { ServerReflectionInfo: () => ClientDuplexStream<object, Listed> }
    ).ServerReflectionInfo();
    const listed = new Promise<Listed>((resolve, reject) => stream.once('data', resolve).once('error', reject));
    stream.write({ listServices: '' });
    expect((await listed).listServicesResponse.service.map(({ name }) => name)).to.include(
      'understudy.traffic.v1.Traffic',
    );
    stream.end();
    reflection.close();
    expect(await healthOf(controlPlane.trafficPort)).to.equal('SERVING');
  });

  it('says that it does not serve while the store is away, and when it stops', async () => {
    await start();
    let problem: string | undefined;
    const replica = { problem: () => problem } as unknown as TrafficApiOptions['replica'];
    const api = new TrafficApi({ replica, log } as TrafficApiOptions);
    const server = new Server();
    api.addTo(server);
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error ? reject(error) : resolve(bound),
      ),
    );
    const becomes = (wanted: string): Promise<unknown> =>
      waitUntil(async () => (await healthOf(port)) === wanted, { withinMs: 5000, what: `it says ${wanted}` });
    await becomes('SERVING');
    problem = 'the store is away';
    await becomes('NOT_SERVING');
    problem = undefined;
    await becomes('SERVING');
    api.close();
    expect(await healthOf(port)).to.equal('NOT_SERVING');
    server.forceShutdown();
  });

  it('has the methods that automatic callers may call unless settings say otherwise', async () => {
    await start();
    expect(Object.keys(trafficService())).to.include.members(automaticMethods);
    expect(automaticMethods).not.to.include('Resume');
  });
});

describe('A replica', () => {
  it('says all anew what its proxies hold after the store was away: others may have forgotten it', async () => {
    let fails = false;
    const held: string[] = [];
    const lists: (string[] | undefined)[] = [];
    const table = {
      beat: async (_: string, proxies?: string[]) => {
        if (fails) throw new Error('away');
        lists.push(proxies);
        return [];
      },
      hold: async ({ service }: { service: string }) => void held.push(service),
      forgetLost: async () => undefined,
      leave: async () => undefined,
    };
    const replica = new Replica({
      table: table as never,
      proxies: () => ['p'],
      acknowledgements: async () => ({ acked: ['p'], nacked: [], pending: [], gone: [], tookMs: 0 }),
      epochOf: () => 7,
      services: () => ['shop'],
      splitKeys: () => [],
      loads: () => ({ cells: [], reports: [] }),
      log,
    });
    await replica.start();
    await waitUntil(() => held.length === 1, { withinMs: 5000, what: 'it says what they hold' });
    fails = true;
    await waitUntil(() => Boolean((replica as unknown as { failure?: string }).failure), {
      withinMs: 5000,
      what: 'a sign of life fails',
    });
    fails = false;
    await waitUntil(() => held.length === 2, { withinMs: 5000, what: 'it says so again' });
    expect(lists.at(-1)).to.deep.equal(['p']);
    await replica.close();
  });
});

describe('A wait for the fleet', () => {
  it('leaves nothing behind when the store fails in the middle of it', async () => {
    let asked = 0;
    const others = async () => {
      asked += 1;
      if (asked > 1) throw new Error('away');
      return [{ id: 'b', silentMs: 0, lost: false, proxies: ['q'], holding: undefined }];
    };
    const standing = async () => ({ acknowledged: [], refused: [], pending: [] });
    const wait = new FleetWait({ id: 'a', others, standing }, undefined);
    const failed: unknown = await wait.answers('shop', 7, 1000, () => false).catch((error: unknown) => error);
    expect(failed).to.be.an('error').with.property('message', 'away');
    expect((wait as unknown as { waiting: Set<unknown> }).waiting.size).to.equal(0);
  });
});

type Check = (request: object, callback: (error: Error | null, answer: { status: string }) => void) => void;

function healthOf(port: number): Promise<string> {
  const Health = makeGenericClientConstructor(healthService, 'Health');
  const health = new Health(`127.0.0.1:${port}`, credentials.createInsecure());
  const { check } = health as unknown as { check: Check };
  return new Promise<string>((resolve, reject) =>
    check.call(health, { service: 'understudy.traffic.v1.Traffic' }, (error, answer) =>
      error ? reject(error) : resolve(answer.status),
    ),
  ).finally(() => health.close());
}
