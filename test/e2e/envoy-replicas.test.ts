/**
 * Two control planes as processes over one Postgres, a real Envoy on each, under open-loop load: what one commands both
 * serve, and what dies or is cut off takes nothing with it. No request may fail from the first test to the last.
 */
import { credentials, makeGenericClientConstructor } from '@grpc/grpc-js';
import { expect } from 'chai';
import { service as healthService } from 'grpc-health-check';
import { Client } from 'pg';
import { FleetStoppedError, StaleEpochError, type CellShare } from '../../blueprints/records';
import { ConfigurationStore } from '../../blueprints/store';
import { TrafficUnavailableError, type ApplyResult, type TrafficEvent } from '../../envoy/traffic-client';
import { releasePorts, reservePorts } from '../../local/ports';
import { waitUntil } from '../../local/wait';
import { blueprintDocument, cellDocument, serviceDocument } from '../support/documents';
import { startEnvoy, type EnvoyProxy } from '../support/envoy-proxy';
import { OpenLoad } from '../support/open-load';
import { startPostgres, type TestPostgres } from '../support/postgres';
import { ReplicaProcess } from '../support/replica-process';
import { Line } from '../support/severed-line';
import { Upstreams } from '../support/upstreams';
import { XdsClient } from '../support/xds-client';

type Check = (request: object, callback: (error: Error | null, answer: { status: string }) => void) => void;

describe('Two control planes over one store', function () {
  this.timeout(120_000);
  let postgres: TestPostgres;
  let url: string;
  let store: ConfigurationStore;
  let upstreams: Upstreams;
  let port: number;
  let toPostgres: Line;
  let a: ReplicaProcess;
  let b: ReplicaProcess;
  /** What each Envoy reaches its control plane by; turned to the other one when that dies. */
  const lines: Line[] = [];
  const envoys: EnvoyProxy[] = [];
  const scripted: XdsClient[] = [];
  const releases: (() => Promise<void>)[] = [];
  let load: OpenLoad;
  let keys = 0;

  before(async () => {
    postgres = await startPostgres();
    url = await postgres.database();
    store = await ConfigurationStore.connect(url);
    await store.migrate();
    [port] = (await reservePorts(1)) as [number];
    upstreams = new Upstreams();
    await store.apply([
      // The instances live in this process: when it is busy with its own for a moment, that is no death of theirs.
      serviceDocument({ listener: { port }, healthCheck: { path: '/healthz', intervalMs: 10_000 } }),
      blueprintDocument(),
      cellDocument('shop-a', { instances: await upstreams.start('shop-a', 1) }),
      cellDocument('shop-b', { instances: await upstreams.start('shop-b', 1) }),
    ]);
    const { hostname, port: postgresPort } = new URL(url);
    toPostgres = await Line.start({ host: hostname, port: Number(postgresPort) });
    const severable = new URL(url);
    severable.port = String(toPostgres.port);
    [a, b] = await Promise.all([ReplicaProcess.start(url), ReplicaProcess.start(severable.href)]);
    for (const [i, replica] of [a, b].entries()) {
      lines.push(await Line.start({ host: '127.0.0.1', port: replica.xdsPort }));
      envoys.push(await startEnvoy(`envoy-${'ab'[i]}`, `127.0.0.1:${lines[i]!.port}`));
    }
    const isWarm = async (envoy: EnvoyProxy): Promise<boolean> =>
      (await envoy.stat('cluster.shop.membership_healthy')) === 2;
    await waitUntil(async () => (await isWarm(envoys[0]!)) && (await isWarm(envoys[1]!)), {
      withinMs: 60_000,
      what: 'both Envoys serve the shop',
    });
    load = new OpenLoad(port, 25);
  });

  /** Both run, each with its own Envoy, and nothing is left of the test before. */
  beforeEach(async () => {
    await a.start();
    await b.start();
    lines[0]!.turnTo(a.xdsPort);
    lines[1]!.turnTo(b.xdsPort);
    await settled();
  });

  afterEach(async function () {
    for (const release of releases.splice(0)) await release();
    for (const client of scripted.splice(0)) client.close();
    if (this.currentTest?.state === 'failed')
      this.currentTest.err!.stack += `\n--- a\n${a.log().slice(-6000)}\n--- b\n${b.log().slice(-6000)}`;
  });

  after(async () => {
    await load?.stop();
    for (const envoy of envoys) await envoy.stop();
    for (const line of lines) await line.stop();
    await a?.stop();
    await b?.stop();
    await toPostgres?.stop();
    await store?.close();
    upstreams?.stop();
    releasePorts([port]);
    await postgres?.stop();
  });

  const split = (share: number): CellShare[] => [
    { cell: 'shop-a', shareBp: share, coverInstances: 0 },
    { cell: 'shop-b', shareBp: 10_000 - share, coverInstances: 0 },
  ];
  const epoch = async (): Promise<number> => (await store.traffic('shop'))!.epoch;
  const order = async (share: number, more: object = {}) => ({
    service: 'shop',
    expectedEpoch: await epoch(),
    split: split(share),
    reason: 'test',
    by: 'tester',
    idempotencyKey: `key-${(keys += 1)}`,
    waitMs: 15_000,
    ...more,
  });
  const failureOf = (attempt: Promise<unknown>): Promise<unknown> =>
    attempt.then(
      () => undefined,
      (error: unknown) => error,
    );
  /** Both live, and each says of its own Envoy alone that it holds the split. What was killed is remembered a while. */
  const isSettled = async (): Promise<boolean> => {
    const alive = (await store.replicas.list()).filter(({ silentMs }) => silentMs < 5000).map(({ id }) => id);
    const holdings = (await store.replicas.holdings('shop')).filter(({ replica }) => alive.includes(replica));
    const now = await epoch();
    const told = holdings.filter((h) => h.epoch === now && h.pending.length === 0).map((h) => h.acknowledged.join());
    return alive.length === 2 && told.sort().join() === 'envoy-a,envoy-b';
  };
  const settled = (): Promise<unknown> =>
    waitUntil(isSettled, {
      withinMs: 60_000,
      what: 'both Envoys hold the split, each at its own replica',
      instead: async () =>
        JSON.stringify({
          epoch: await epoch(),
          replicas: await store.replicas.list(),
          holdings: await store.replicas.holdings('shop'),
        }),
    });
  /** A proxy that says only what the test says, with the shop's resources as they are now. */
  const connectScripted = async (replica: ReplicaProcess, node: string): Promise<XdsClient> => {
    const client = new XdsClient(replica.xdsPort, 'delta', node);
    scripted.push(client);
    client.send('cluster', { resource_names_subscribe: ['shop'] });
    client.send('endpoints', { resource_names_subscribe: ['shop'] });
    await client.accept('cluster');
    await client.accept('endpoints');
    await waitUntil(async () => (await store.replicas.holdings('shop')).some((h) => h.acknowledged.includes(node)), {
      withinMs: 10_000,
      what: `${node} is known to hold the split`,
    });
    return client;
  };
  /** Holds a lock of Postgres from a connection of the test's own, once it gets it; answers how to let go. */
  const lock = async (statement: string): Promise<{ held: Promise<unknown>; release: () => Promise<void> }> => {
    const client = new Client({ connectionString: url });
    client.on('error', () => undefined);
    await client.connect();
    await client.query('begin');
    const held = client.query(statement);
    held.catch(() => undefined);
    let isHeld = true;
    const release = async (): Promise<void> => {
      if (!isHeld) return;
      isHeld = false;
      await client.end().catch(() => undefined);
    };
    releases.push(release);
    return { held, release };
  };
  const isBlocked = async (what: string): Promise<boolean> => {
    const client = new Client({ connectionString: url });
    await client.connect();
    const { rows } = await client.query<{ n: string }>(
      `select count(*) n from pg_stat_activity where wait_event_type = 'Lock' and query ilike '%' || $1 || '%' and pid <> pg_backend_pid()`,
      [what],
    );
    await client.end();
    return Number(rows[0]!.n) > 0;
  };
  const bothEnvoys = ['envoy-a', 'envoy-b'];
  const loses = async (victim: 'a' | 'b'): Promise<void> => {
    const [dead, heir] = victim === 'a' ? [a, b] : [b, a];
    await dead.kill();
    lines[victim === 'a' ? 0 : 1]!.turnTo(heir.xdsPort);
  };

  it('serves a change made at one by both, at the same versions, and waits for the proxies of both', async () => {
    const result = await a.client.applySplit(await order(6000));
    expect(result).to.deep.include({
      acknowledged: bothEnvoys,
      refused: [],
      pending: [],
      gone: [],
      outcome: 'COMPLETE',
    });
    expect((await b.client.applySplit(await order(6100))).acknowledged).to.deep.equal(bothEnvoys);
    const versions = await Promise.all(
      [a, b].map(async (replica) => {
        const client = new XdsClient(replica.xdsPort, 'delta', `reader-of-${replica.xdsPort}`);
        scripted.push(client);
        client.send('cluster');
        client.send('endpoints', { resource_names_subscribe: ['shop', 'shop|shop-a', 'shop|shop-b'] });
        const answers = [await client.accept('cluster'), await client.accept('endpoints')];
        return answers.map((answer) => [...answer.resources].map(([name, { version }]) => [name, version]).sort());
      }),
    );
    expect(versions[0]).to.deep.equal(versions[1]);
    expect(versions[0]!.map((ofType) => ofType.length)).to.deep.equal([3, 3]);
  });

  it('lets exactly one of two callers at two replicas swap an epoch', async () => {
    const racing = await order(5500);
    const outcomes = await Promise.all(
      [a, b].map((replica) =>
        replica.client
          .applySplit({ ...racing, idempotencyKey: `race-${replica.xdsPort}` })
          .catch((error: unknown) => error),
      ),
    );
    expect(outcomes.filter((outcome) => outcome instanceof StaleEpochError)).to.have.length(1);
    const won = outcomes.find((outcome) => !(outcome instanceof Error)) as ApplyResult;
    expect(won.epoch).to.equal(racing.expectedEpoch + 1);
    expect(won.acknowledged).to.deep.equal(bothEnvoys);
    expect(await epoch()).to.equal(won.epoch);
  });

  it('names a proxy of the other replica that has not answered in time', async () => {
    await connectScripted(b, 'staller');
    const result = await a.client.applySplit(await order(6200, { waitMs: 3000 }));
    expect(result).to.deep.include({ acknowledged: bothEnvoys, pending: ['staller'], outcome: 'PARTIAL' });
  });

  it('takes a split back that a proxy of the other replica refuses, and names proxy and resource', async () => {
    const rejecting = await connectScripted(b, 'rejecting');
    const before = (await store.traffic('shop'))!;
    const change = await order(9000);
    const applying = a.client.applySplit(change);
    rejecting.nack(await rejecting.take('endpoints'), 'shop: no such weights');
    const result = await applying;
    expect(result).to.deep.include({
      outcome: 'ROLLED_BACK',
      rolledBackEpoch: before.epoch + 1,
      epoch: before.epoch + 2,
    });
    expect(result.split).to.deep.equal(before.split);
    const refusal = { node: 'rejecting', resource: 'endpoints shop', reason: 'shop: no such weights' };
    expect(result.refused).to.deep.equal([refusal]);
    expect(result.acknowledged).to.include.members(bothEnvoys);
    const [rollback] = await store.splitChanges('shop', 1);
    expect(rollback).to.deep.include({ epoch: result.epoch, by: 'control-plane', revertsEpoch: before.epoch + 1 });
    expect(rollback!.reason).to.contain('rejecting refuses endpoints shop');
    // The same key again, at the other replica: the same answer, and nothing is changed.
    expect(await b.client.applySplit(change)).to.deep.include({
      outcome: 'ROLLED_BACK',
      epoch: result.epoch,
      refused: [refusal],
    });
    expect(await epoch()).to.equal(result.epoch);
    expect(
      rejecting.answers.filter(({ type }) => type === 'endpoints'),
      'it has what is in force: nothing is sent',
    ).to.deep.equal([]);
  });

  it('loses nothing when the replica is killed before the commit: the retry at the other makes the change', async () => {
    const change = await order(6300);
    const traffic = await lock(`select * from traffic where service = 'shop' for update`);
    await traffic.held;
    const asked = failureOf(a.client.applySplit(change));
    await waitUntil(() => isBlocked('traffic'), { withinMs: 10_000, what: 'the change waits for the lock' });
    await loses('a');
    expect(await asked).to.be.instanceOf(TrafficUnavailableError);
    await traffic.release();
    const result = await b.client.applySplit(change);
    expect(result.epoch).to.equal(change.expectedEpoch + 1);
    expect(result.acknowledged).to.include.members(bothEnvoys);
    expect(await epoch()).to.equal(result.epoch);
  });

  it('publishes at the other what was committed when the replica was killed before it published', async () => {
    const change = await order(6400);
    // The commit is held at its last step. Behind it waits whoever will keep every replica from reading what to publish.
    const leases = await lock('lock table split_leases in exclusive mode');
    await leases.held;
    const asked = failureOf(a.client.applySplit(change));
    await waitUntil(() => isBlocked('from "split_leases"'), {
      withinMs: 10_000,
      what: 'the change is about to commit',
    });
    const services = await lock('lock table services in access exclusive mode');
    await waitUntil(() => isBlocked('lock table services'), { withinMs: 10_000, what: 'the next lock stands in line' });
    await leases.release();
    await services.held;
    expect(await epoch(), 'it is committed').to.equal(change.expectedEpoch + 1);
    await loses('a');
    await services.release();
    expect(await asked).to.be.instanceOf(TrafficUnavailableError);
    const result = await b.client.applySplit(change);
    expect(result).to.deep.include({ epoch: change.expectedEpoch + 1, outcome: 'COMPLETE' });
    expect(result.acknowledged).to.include.members(bothEnvoys);
    expect(await epoch(), 'the change was made once').to.equal(change.expectedEpoch + 1);
  });

  it('says who moved and who is gone when a replica is killed after it published, and the retry answers the same', async () => {
    await connectScripted(a, 'staller');
    const change = await order(6500);
    const atDying = failureOf(a.client.applySplit(change));
    await waitUntil(
      async () =>
        (await store.replicas.holdings('shop')).some(
          (h) => h.epoch > change.expectedEpoch && h.pending.includes('staller'),
        ),
      { withinMs: 10_000, what: 'the step is published and held open by one proxy' },
    );
    const atLiving = b.client.applySplit(change);
    await waitUntil(() => b.log().includes(`was already shop-a 6500`), {
      withinMs: 10_000,
      what: 'the other waits too',
    });
    await loses('a');
    expect(await atDying).to.be.instanceOf(TrafficUnavailableError);
    const result = await atLiving;
    expect(result).to.deep.include({
      epoch: change.expectedEpoch + 1,
      pending: [],
      gone: ['staller'],
      moved: ['envoy-a'],
    });
    expect(result.acknowledged).to.deep.equal(bothEnvoys);
    const again = await b.client.applySplit(change);
    expect(again).to.deep.include({ epoch: result.epoch, acknowledged: bothEnvoys, outcome: 'COMPLETE' });
    expect(await epoch()).to.equal(result.epoch);
  });

  it('sends an Envoy nothing again when both replicas start anew with empty caches', async () => {
    const updates = (envoy: EnvoyProxy): Promise<number[]> =>
      Promise.all(
        [
          'cluster.shop.update_success',
          'cluster_manager.cds.update_success',
          'listener_manager.lds.update_success',
        ].map((name) => envoy.stat(name)),
      );
    const before = await Promise.all(envoys.map(updates));
    await Promise.all([a.kill(), b.kill()]);
    await Promise.all([a.start(), b.start()]);
    await settled();
    const result = await b.client.applySplit(await order(6600));
    expect(result.acknowledged).to.include.members(bothEnvoys);
    const after = await Promise.all(envoys.map(updates));
    const steps = before.map(([endpoints, ...rest]) => [endpoints! + 1, ...rest]);
    expect(after, 'only the step itself').to.deep.equal(steps);
  });

  it('serves on without Postgres, says so, refuses changes in clear words, and catches up afterwards', async () => {
    const Health = makeGenericClientConstructor(healthService, 'Health');
    const health = new Health(`127.0.0.1:${b.trafficPort}`, credentials.createInsecure());
    const { check } = health as unknown as { check: Check };
    const isServing = (): Promise<string> =>
      new Promise((resolve, reject) =>
        check.call(health, { service: 'understudy.traffic.v1.Traffic' }, (error, answer) =>
          error ? reject(error) : resolve(answer.status),
        ),
      );
    expect(await isServing()).to.equal('SERVING');
    // Replicas that were killed in a test before are missed until this one has lived long enough to judge them.
    await waitUntil(async () => (await a.client.applySplit(await order(6650))).gone.length === 0, {
      withinMs: 30_000,
      everyMs: 500,
      what: 'those who were killed before are forgotten',
    });
    const change = await order(6700, { waitMs: 3000 });
    // Also should this test fail: the next ones need both.
    releases.push(async () => toPostgres.mend());
    toPostgres.sever();
    // The other goes on, and says that it cannot tell what the proxies of this one have. It is asked at once: a replica
    // that has been silent for five seconds when a change is begun is lost, and its proxies are not missed any more.
    const result = await a.client.applySplit(change);
    expect(result.acknowledged).to.deep.equal(['envoy-a']);
    expect([...result.pending, ...result.gone]).to.deep.equal(['envoy-b']);
    await waitUntil(async () => (await isServing()) === 'NOT_SERVING', { withinMs: 20_000, what: 'readiness says so' });
    const refused = await failureOf(b.client.applySplit(await order(7000)));
    expect(refused).to.be.instanceOf(TrafficUnavailableError);
    expect((refused as Error).message).to.contain('the Configuration Data Store has not answered for');
    toPostgres.mend();
    await waitUntil(async () => (await isServing()) === 'SERVING', { withinMs: 30_000, what: 'it is ready again' });
    await settled();
    health.close();
  });

  it('returns an unattended split to the safe one, once, after the replica that took it has been killed', async () => {
    const leased = await a.client.applySplit(await order(7100, { leaseMs: 5000 }));
    expect((await b.client.getTraffic('shop')).lease).to.deep.include({ holder: 'tester', epoch: leased.epoch });
    await loses('a');
    await waitUntil(async () => (await epoch()) > leased.epoch, { withinMs: 30_000, what: 'the split returns' });
    await settledAtB();
    const changes = await store.splitChanges('shop', 5, leased.epoch);
    expect(changes).to.have.length(1);
    expect(changes[0]).to.deep.include({ by: 'control-plane', split: split(5000) });
    expect(changes[0]!.reason).to.contain('tester has not renewed its lease of 5000 ms');
  });
  const settledAtB = (): Promise<unknown> =>
    waitUntil(
      async () => {
        const now = await epoch();
        const held = (await store.replicas.holdings('shop')).filter((h) => h.epoch === now);
        return held.some((h) => bothEnvoys.every((envoy) => h.acknowledged.includes(envoy)));
      },
      { withinMs: 30_000, what: 'both Envoys hold the split at the replica that lives' },
    );

  it('makes no automatic change at either while the fleet is stopped, and says who stopped it and why', async () => {
    await a.client.stop('ann', 'odd predictions');
    try {
      // A person's split, left unattended while the fleet is stopped.
      const leased = await a.client.applySplit(await order(7200, { leaseMs: 1000, override: true }));
      const refused = await failureOf(b.client.applySplit(await order(7300)));
      expect(refused).to.be.instanceOf(FleetStoppedError);
      expect((refused as FleetStoppedError).stop).to.deep.include({ by: 'ann', reason: 'odd predictions' });
      for (const replica of [a, b]) {
        expect((await replica.client.getTraffic('shop')).stop).to.deep.include({ by: 'ann' });
      }
      await waitUntil(
        () => a.log().includes('has run out and its split stays') && b.log().includes('its split stays'),
        {
          withinMs: 30_000,
          what: 'both see that the lease has run out, and leave the split',
        },
      );
      expect(await epoch()).to.equal(leased.epoch);
      const byPerson = await b.client.applySplit(await order(7400, { override: true }));
      expect(byPerson.acknowledged).to.deep.equal(bothEnvoys);
    } finally {
      await b.client.resume('ann', 'all is well');
    }
    expect((await a.client.applySplit(await order(6000))).outcome).to.equal('COMPLETE');
  });

  it('tells a watcher at one every change made at the other, in order, also those of while it was away', async () => {
    const first = await epoch();
    const seen: TrafficEvent[] = [];
    const changes = (): number[] => seen.flatMap((event) => (event.kind === 'change' ? [event.change.epoch] : []));
    const watch = async (fromEpoch: number, until: () => boolean): Promise<void> => {
      const leave = new AbortController();
      for await (const event of b.client.watch('shop', { fromEpoch, loadsEveryMs: 200, signal: leave.signal })) {
        seen.push(event);
        if (until()) leave.abort();
      }
    };
    const watching = watch(first, () => changes().length === 2 && seen.some(({ kind }) => kind === 'loads'));
    await a.client.applySplit(await order(6100));
    await a.client.applySplit(await order(6200));
    await watching;
    await a.client.applySplit(await order(6300));
    await watch(
      first + 2,
      () =>
        changes().length === 3 &&
        seen.some((e) => e.kind === 'progress' && e.progress.epoch === first + 3 && e.progress.acknowledged === 2),
    );
    expect(changes()).to.deep.equal([first + 1, first + 2, first + 3]);
    const view = seen.find((event) => event.kind === 'loads');
    expect(view?.kind === 'loads' && view.loads.proxies).to.deep.equal(bothEnvoys);
  });

  it('has failed no request of the load from the first test to here', async () => {
    const why: string[] = [];
    for (const envoy of load.failures.length > 0 ? envoys : []) {
      for (const what of [
        'cluster.shop.health_check',
        'cluster.shop.upstream_cx_none_healthy',
        'cluster.shop.upstream_rq_5xx',
      ])
        why.push(...[...(await envoy.stats(what))].map(([name, value]) => `${name}: ${value}`));
    }
    expect(load.failures, why.join('\n')).to.deep.equal([]);
    expect(load.sent).to.be.greaterThan(100);
  });
});
