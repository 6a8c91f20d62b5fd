/** The Configuration Data Store on a real Postgres: splits are fenced, changes are whole, changes are heard of. */
import { expect } from 'chai';
import type { CellShare } from '../../blueprints/records';
import { RefusedError, StaleEpochError } from '../../blueprints/records';
import { ConfigurationStore } from '../../blueprints/store';
import type { Dossier } from '../../workflows/messages';
import { blueprintDocument, cellDocument, serviceDocument, shopDocuments } from '../support/documents';
import { startPostgres, type TestPostgres } from '../support/postgres';

describe('Configuration Data Store', function () {
  this.timeout(60_000);
  let postgres: TestPostgres;
  let url: string;
  let store: ConfigurationStore;

  before(async () => {
    postgres = await startPostgres();
  });
  after(async () => {
    await postgres.stop();
  });
  beforeEach(async () => {
    url = await postgres.database();
    store = await ConfigurationStore.connect(url);
    await store.migrate();
  });
  afterEach(async () => {
    await store.close();
  });

  const split = (...shares: [string, number][]): CellShare[] =>
    shares.map(([cell, shareBp]) => ({ cell, shareBp, coverInstances: 0 }));
  const change = (expectedEpoch: number, idempotencyKey: string, to: CellShare[]) => ({
    service: 'shop',
    expectedEpoch,
    split: to,
    reason: 'test',
    by: 'tester',
    idempotencyKey,
  });

  it('brings the tables up to date once when several processes start together', async () => {
    const fresh = await postgres.database();
    const stores = await Promise.all([1, 2, 3, 4].map(() => ConfigurationStore.connect(fresh)));
    try {
      await Promise.all(stores.map((each) => each.migrate()));
      for (const each of stores) expect(await each.services()).to.deep.equal([]);
    } finally {
      await Promise.all(stores.map((each) => each.close()));
    }
  });

  it('says where Postgres is missing, without the password, when it does not come in time', async () => {
    const failure = await ConfigurationStore.connect('postgres://u:geheim@127.0.0.1:1/shop', { timeoutMs: 300 }).then(
      () => undefined,
      (error: Error) => error.message,
    );
    expect(failure).to.match(/Postgres at 127\.0\.0\.1:1\/shop could not be opened within 0\.3 s/);
    expect(failure).not.to.contain('geheim');
  });

  it('begins a service with its safe split at epoch 1', async () => {
    await store.apply(shopDocuments());
    expect(await store.traffic('shop')).to.deep.equal({
      service: 'shop',
      epoch: 1,
      split: split(['shop-a', 5000], ['shop-b', 5000]),
    });
    expect(await store.traffic('nobody')).to.equal(undefined);
  });

  it('lets exactly one of many simultaneous changes of one epoch win', async () => {
    await store.apply(shopDocuments());
    const results = await Promise.allSettled(
      Array.from({ length: 8 }, (_, i) =>
        store.changeTraffic(change(1, `key-${i}`, split(['shop-a', 4000 + i], ['shop-b', 6000 - i]))),
      ),
    );
    const won = results.filter((result) => result.status === 'fulfilled');
    const lost = results.filter((result) => result.status === 'rejected');
    expect(won).to.have.length(1);
    for (const { reason } of lost) expect(reason).to.be.instanceOf(StaleEpochError);
    expect(await store.traffic('shop')).to.deep.equal(won[0]!.value.state);
    expect(await store.splitChanges('shop')).to.have.length(1);
  });

  it('answers a repeated idempotency key with the state the first call made, even later and at once', async () => {
    await store.apply(shopDocuments());
    const first = change(1, 'step-1', split(['shop-a', 3000], ['shop-b', 7000]));
    const answers = await Promise.all([1, 2, 3].map(() => store.changeTraffic(first)));
    expect(answers.filter(({ repeated }) => !repeated)).to.have.length(1);
    await store.changeTraffic(change(2, 'step-2', split(['shop-b', 10_000])));
    const again = await store.changeTraffic(first);
    expect(again).to.deep.equal({ state: { service: 'shop', epoch: 2, split: first.split }, repeated: true });
    expect((await store.traffic('shop'))?.epoch).to.equal(3);
    expect((await store.splitChanges('shop')).map(({ epoch, by, reason }) => ({ epoch, by, reason }))).to.deep.equal([
      { epoch: 3, by: 'tester', reason: 'test' },
      { epoch: 2, by: 'tester', reason: 'test' },
    ]);
  });

  it('refuses a split that cannot be, and leaves the epoch as it was', async () => {
    await store.apply(shopDocuments());
    const refusal = await store.changeTraffic(change(1, 'k', split(['shop-a', 9000], ['nobody', 500]))).then(
      () => undefined,
      (error: Error) => error,
    );
    expect(refusal).to.be.instanceOf(RefusedError);
    expect(refusal?.message).to.contain('cell nobody is not a cell of the service');
    expect(refusal?.message).to.contain('add up to 9500, not 10000');
    expect((await store.traffic('shop'))?.epoch).to.equal(1);
  });

  it('applies all documents or none, and says every reason', async () => {
    await store.apply(shopDocuments());
    const refusal = await store
      .apply([
        serviceDocument({ name: 'cart', listener: { port: 10081 }, safeSplit: { 'cart-a': 5000, 'shop-a': 5000 } }),
        cellDocument('cart-b', { service: 'cart', blueprint: 'missing' }),
        blueprintDocument({ name: 'cart' }),
      ])
      .then(
        () => undefined,
        (error: Error) => error,
      );
    expect(refusal).to.be.instanceOf(RefusedError);
    expect(refusal?.message.split('\n')).to.deep.equal([
      'document 1 (Service cart): safeSplit.cart-a: there is no cell cart-a, neither here nor in the store',
      'document 1 (Service cart): safeSplit.shop-a: cell shop-a belongs to service shop, not to cart',
      'document 2 (Cell cart-b): blueprint: there is no blueprint missing, neither here nor in the store',
    ]);
    expect(await store.service('cart')).to.equal(undefined);
    expect(await store.blueprint('cart')).to.equal(undefined);
  });

  it('changes nothing when the same documents are applied again, and names the paths when they differ', async () => {
    const created = await store.apply(shopDocuments());
    expect(created.map(({ action }) => action)).to.deep.equal(['created', 'created', 'created', 'created']);
    const again = await store.apply(shopDocuments());
    expect(again.map(({ action }) => action)).to.deep.equal(['unchanged', 'unchanged', 'unchanged', 'unchanged']);

    const changed = await store.apply([
      serviceDocument({ policy: { autonomy: 'act' } }),
      blueprintDocument({ resources: { memoryLimitMib: 128 } }),
    ]);
    expect(changed).to.deep.equal([
      { kind: 'Service', name: 'shop', action: 'changed', paths: ['policy.autonomy'] },
      { kind: 'Blueprint', name: 'shop', action: 'changed', paths: ['resources.memoryLimitMib'] },
    ]);
    expect((await store.blueprint('shop'))?.version).to.equal(2);
    expect((await store.blueprint('shop', 1))?.spec.resources.memoryLimitMib).to.equal(64);
    expect((await store.cell('shop-a'))?.blueprint).to.deep.equal({ name: 'shop', version: 1 });
  });

  it('keeps the observed instances of a cell whose document leaves them open', async () => {
    const open = [serviceDocument(), cellDocument('shop-a'), cellDocument('shop-b'), blueprintDocument()];
    await store.apply(open);
    const instances = [{ name: 'shop-a-1', address: '127.0.0.1', port: 20111 }];
    await store.updateCell('shop-a', { instances });
    await store.apply(open);
    expect((await store.cell('shop-a'))?.instances).to.deep.equal(instances);
  });

  it('tells a listener which service changed, in another process too, and goes on after the connection broke', async () => {
    const other = await ConfigurationStore.connect(url);
    try {
      const heard: (string | null)[] = [];
      let wake: () => void = () => undefined;
      const until = async (seen: () => boolean) => {
        while (!seen()) await new Promise<void>((resolve) => (wake = resolve));
      };
      other.onChange((service) => {
        heard.push(service);
        wake();
      });
      await until(() => heard.includes(null));
      await store.apply(shopDocuments());
      await until(() => heard.includes('shop'));

      heard.length = 0;
      await terminateListeners(url);
      await until(() => heard.includes(null));
      await store.changeTraffic(change(1, 'after', split(['shop-a', 10_000])));
      await until(() => heard.includes('shop'));
    } finally {
      await other.close();
    }
  });

  it('gives one failover one synthetic cell, however often and from wherever it asks', async () => {
    await store.apply(shopDocuments());
    const request = { failover: 'failover/shop/shop-a', source: 'shop-a', blueprint: { name: 'shop', version: 1 } };
    const answers = await Promise.all(Array.from({ length: 6 }, () => store.acquireSyntheticCell(request)));
    expect(new Set(answers.map(({ cell }) => cell.name))).to.deep.equal(new Set(['shop-a-understudy-1']));
    expect(answers.filter(({ from }) => from === 'created')).to.have.length(1);
    expect(answers[0]!.cell).to.deep.include({
      role: 'synthetic',
      state: 'provisioning',
      sourceCell: 'shop-a',
      owner: request.failover,
    });

    const second = await store.acquireSyntheticCell({ ...request, failover: 'failover/shop/shop-b', source: 'shop-b' });
    expect(second.cell.name).to.equal('shop-b-understudy-1');
  });

  it('gives an idle synthetic cell of the same blueprint version to one failover only', async () => {
    await store.apply(shopDocuments());
    const blueprint = { name: 'shop', version: 1 };
    const { cell } = await store.acquireSyntheticCell({ failover: 'f1', source: 'shop-a', blueprint });
    await store.updateCell(cell.name, { state: 'idle', owner: null });
    const answers = await Promise.all(
      ['f2', 'f3'].map((failover) => store.acquireSyntheticCell({ failover, source: 'shop-b', blueprint })),
    );
    expect(answers.map(({ from }) => from).sort()).to.deep.equal(['created', 'idle']);
    expect(new Set(answers.map(({ cell: { name } }) => name)).size).to.equal(2);

    await store.updateCell(cell.name, { state: 'idle', owner: null });
    await store.apply([blueprintDocument({ resources: { memoryLimitMib: 128 } })]);
    const newer = await store.acquireSyntheticCell({
      failover: 'f4',
      source: 'shop-a',
      blueprint: { name: 'shop', version: 2 },
    });
    expect(newer.from).to.equal('created');
  });

  it('does not let an attempt that was given up on write over the new owner’s cell', async () => {
    await store.apply(shopDocuments());
    const blueprint = { name: 'shop', version: 1 };
    const { cell } = await store.acquireSyntheticCell({ failover: 'f1', source: 'shop-a', blueprint });
    await store.updateCell(cell.name, { state: 'idle', owner: null }, 'f1');
    await store.acquireSyntheticCell({ failover: 'f2', source: 'shop-a', blueprint });
    const late = await store.updateCell(cell.name, { state: 'idle', owner: null }, 'f1').then(
      () => undefined,
      (error: Error) => error,
    );
    expect(late).to.be.instanceOf(RefusedError);
    expect((await store.cell(cell.name))?.owner).to.equal('f2');
  });

  it('never retires a cell that is in the split, nor lets a split name a cell being retired', async () => {
    await store.apply(shopDocuments());
    const { cell } = await store.acquireSyntheticCell({
      failover: 'f1',
      source: 'shop-a',
      blueprint: { name: 'shop', version: 1 },
    });
    await store.updateCell(cell.name, { instances: [{ name: 'x-1', address: '127.0.0.1', port: 20301 }] });
    const withCell = split(['shop-b', 9500], [cell.name, 500]);
    // Whichever comes first decides; both together never hold.
    const [retirement, step] = await Promise.allSettled([
      store.beginRetirement(cell.name, 'f1'),
      store.changeTraffic(change(1, 'race', withCell)),
    ]);
    expect([retirement.status, step.status].sort()).to.deep.equal(['fulfilled', 'rejected']);
    const state = (await store.cell(cell.name))?.state;
    const named = (await store.traffic('shop'))!.split.some((share) => share.cell === cell.name);
    expect(named).to.equal(state !== 'retired');
  });

  it('keeps one dossier per run and answers the newest run', async () => {
    const dossier = (runId: string, startedAt: string, reason: string): Dossier =>
      ({ failover: 'failover/shop/shop-a', runId, service: 'shop', cell: 'shop-a', startedAt, reason }) as Dossier;
    await store.saveDossier(dossier('r1', '2026-11-22T10:00:00.000Z', 'first'));
    await store.saveDossier(dossier('r2', '2026-11-22T11:00:00.000Z', 'begun'));
    await store.saveDossier(dossier('r2', '2026-11-22T11:00:00.000Z', 'ended'));
    expect((await store.dossier('failover/shop/shop-a'))?.reason).to.equal('ended');
    expect((await store.dossier('failover/shop/shop-a', 'r1'))?.reason).to.equal('first');
    expect((await store.dossiers()).map(({ runId }) => runId)).to.deep.equal(['r2', 'r1']);
  });
});

/** Cuts the change feeds' connections on the server's side. */
async function terminateListeners(url: string): Promise<void> {
  const { Client } = await import('pg');
  const client = new Client({ connectionString: url });
  await client.connect();
  await client.query(
    `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'understudy change feed' and datname = current_database()`,
  );
  await client.end();
}
