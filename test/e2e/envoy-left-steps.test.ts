/** Control planes as processes, killed in mid-step: what a proxy has refused is taken back by who is left, though nobody asks again. */
import { expect } from 'chai';
import { Client } from 'pg';
import { ConfigurationStore } from '../../blueprints/store';
import { waitUntil } from '../../local/wait';
import { shopDocuments } from '../support/documents';
import { startPostgres, type TestPostgres } from '../support/postgres';
import { ReplicaProcess } from '../support/replica-process';
import { XdsClient } from '../support/xds-client';

describe('A step whose control plane is killed', function () {
  this.timeout(120_000);
  let postgres: TestPostgres;
  let url: string;
  let store: ConfigurationStore;
  let a: ReplicaProcess;
  let b: ReplicaProcess;
  const proxies: XdsClient[] = [];

  before(async () => {
    postgres = await startPostgres();
    url = await postgres.database();
    store = await ConfigurationStore.connect(url);
    await store.migrate();
    await store.apply(shopDocuments());
    [a, b] = await Promise.all([ReplicaProcess.start(url), ReplicaProcess.start(url)]);
  });
  afterEach(function () {
    if (this.currentTest?.state === 'failed')
      this.currentTest.err!.stack += `\n--- a\n${a.log().slice(-6000)}\n--- b\n${b.log().slice(-6000)}`;
  });
  after(async () => {
    for (const proxy of proxies) proxy.close();
    await a?.stop();
    await b?.stop();
    await store?.close();
    await postgres?.stop();
  });

  const connect = async (replica: ReplicaProcess, node: string): Promise<XdsClient> => {
    const proxy = new XdsClient(replica.xdsPort, 'delta', node);
    proxies.push(proxy);
    proxy.send('cluster', { resource_names_subscribe: ['shop'] });
    proxy.send('endpoints', { resource_names_subscribe: ['shop'] });
    await proxy.accept('cluster');
    await proxy.accept('endpoints');
    await waitUntil(async () => (await store.replicas.holdings('shop')).some((h) => h.acknowledged.includes(node)), {
      withinMs: 10_000,
      what: `${node} is known to hold the split`,
    });
    return proxy;
  };
  const heldUp = async (): Promise<boolean> => {
    const client = new Client({ connectionString: url });
    await client.connect();
    const { rowCount } = await client.query(
      `select 1 from pg_stat_activity where wait_event_type = 'Lock' and query ilike '%from "traffic"%for update%'`,
    );
    await client.end();
    return rowCount! > 0;
  };

  it('is taken back by another when it is killed between the refusal and the roll-back', async () => {
    const refusing = await connect(a, 'refusing');
    const following = await connect(b, 'following');
    const before = (await store.traffic('shop'))!;
    const change = {
      service: 'shop',
      expectedEpoch: before.epoch,
      split: [
        { cell: 'shop-a', shareBp: 9000, coverInstances: 0 },
        { cell: 'shop-b', shareBp: 1000, coverInstances: 0 },
      ],
      reason: 'test',
      by: 'tester',
      idempotencyKey: 'a step',
      waitMs: 30_000,
    };
    const asked = a.client.applySplit(change).catch((error: unknown) => error);
    const sent = await refusing.take('endpoints');
    await following.accept('endpoints');
    // The roll-back waits for this lock: it is begun, and not made.
    const holder = new Client({ connectionString: url });
    await holder.connect();
    try {
      await holder.query('begin');
      await holder.query(`select * from traffic where service = 'shop' for update`);
      refusing.nack(sent, 'shop: no such weights');
      await waitUntil(heldUp, { withinMs: 20_000, what: 'the roll-back is begun' });
      await waitUntil(async () => (await store.replicas.holdings('shop')).some((h) => h.refused.length > 0), {
        withinMs: 10_000,
        what: 'the refusal is written down',
      });
      await a.kill();
    } finally {
      await holder.end();
    }
    expect(await asked).to.be.an('error');
    expect((await store.traffic('shop'))!.epoch, 'the refused split is in force').to.equal(before.epoch + 1);

    // Nobody repeats the call.
    await waitUntil(async () => (await store.traffic('shop'))!.epoch > before.epoch + 1, {
      withinMs: 60_000,
      what: 'the split is taken back',
    });
    const [rollback] = await store.splitChanges('shop', 1);
    expect(rollback).to.deep.include({
      epoch: before.epoch + 2,
      split: before.split,
      by: 'control-plane',
      revertsEpoch: before.epoch + 1,
    });
    expect(rollback!.reason).to.contain('refusing refuses endpoints shop: shop: no such weights');
    expect((await following.accept('endpoints')).names).to.deep.equal(['shop']);
    await waitUntil(async () => (await store.steps.list()).length === 0, { withinMs: 10_000, what: 'nothing is open' });
    // The caller who does repeat it is told so.
    expect(await b.client.applySplit({ ...change, waitMs: 5000 })).to.deep.include({
      outcome: 'ROLLED_BACK',
      epoch: before.epoch + 2,
      refused: [{ node: 'refusing', resource: 'endpoints shop', reason: 'shop: no such weights' }],
    });
  });
});
