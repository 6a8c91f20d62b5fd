/** The control plane as a process of its own, over a real Postgres and before a real Envoy. */
import { expect } from 'chai';
import { Client } from 'pg';
import { ConfigurationStore } from '../../blueprints/store';
import { TrafficClient } from '../../envoy/traffic-client';
import { releasePorts, reservePorts } from '../../local/ports';
import { startStack, type Stack } from '../../local/stack';
import { waitUntil } from '../../local/wait';
import { blueprintDocument, cellDocument, serviceDocument } from '../support/documents';
import { send, Upstreams } from '../support/upstreams';

describe('Control plane process', function () {
  this.timeout(120_000);
  let stack: Stack;
  let store: ConfigurationStore;
  let client: TrafficClient;
  let upstreams: Upstreams;
  let port: number;

  before(async () => {
    [port] = (await reservePorts(1)) as [number];
    upstreams = new Upstreams();
    stack = await startStack({ parts: ['postgres', 'control-plane', 'envoy'] });
    store = await ConfigurationStore.connect(stack.settings.postgres.url);
    await store.apply([
      // The instances live in this process: when it is busy with its own for a moment, that is no death of theirs.
      serviceDocument({ listener: { port }, healthCheck: { intervalMs: 10_000 } }),
      blueprintDocument(),
      cellDocument('shop-a', { instances: await upstreams.start('shop-a', 2) }),
      cellDocument('shop-b', { instances: await upstreams.start('shop-b', 2) }),
    ]);
    client = new TrafficClient(stack.addresses.trafficApi);
    await waitUntil(async () => (await send(port, 1)).ok === 1, { withinMs: 30_000, what: 'Envoy serves the shop' });
  });

  after(async () => {
    client?.close();
    await store?.close();
    await stack?.stop();
    upstreams.stop();
    releasePorts([port]);
  });

  const change = (expectedEpoch: number, a: number, idempotencyKey: string) => ({
    service: 'shop',
    expectedEpoch,
    split: [
      { cell: 'shop-a', shareBp: a, coverInstances: 0 },
      { cell: 'shop-b', shareBp: 10_000 - a, coverInstances: 0 },
    ],
    reason: 'test',
    by: 'tester',
    idempotencyKey,
  });

  it('lets Envoy wait in vain for nothing while a cell joins a service that serves already', async () => {
    // Envoy acknowledges a new cluster only once it is warm; whoever waits for that with the endpoints waits 15 s.
    await store.apply([cellDocument('shop-c', { instances: await upstreams.start('shop-c', 2) })]);
    const { state } = await store.changeTraffic({
      ...change(1, 5000, 'with a third cell'),
      split: [
        { cell: 'shop-a', shareBp: 5000, coverInstances: 0 },
        { cell: 'shop-b', shareBp: 4000, coverInstances: 0 },
        { cell: 'shop-c', shareBp: 1000, coverInstances: 0 },
      ],
    });
    expect(state.epoch).to.equal(2);
    await waitUntil(
      async () => {
        await send(port, 50);
        return upstreams.ofCell('shop-c') > 0;
      },
      { withinMs: 30_000, what: 'the third cell is reached' },
    );
    const url = `http://${stack.addresses.envoyAdmin[0]}/stats?format=json&filter=init_fetch_timeout`;
    const { stats } = (await (await fetch(url)).json()) as { stats: { name: string; value: number }[] };
    expect(stats).to.have.length.greaterThan(3);
    expect(stats.filter(({ value }) => value > 0)).to.deep.equal([]);
  });

  it('publishes a service that was applied while it ran, and a split when every proxy has taken it', async () => {
    const result = await client.applySplit(change(2, 2500, 'first'));
    expect(result).to.deep.include({ epoch: 3, acknowledged: ['envoy'], refused: [], pending: [], gone: [] });
    upstreams.hits.clear();
    const answers = await send(port, 1000);
    expect(answers.failed, answers.failures[0]).to.equal(0);
    expect(upstreams.ofCell('shop-a')).to.be.closeTo(250, 30);
  });

  it('answers a repeated change as the first time, and leaves the epoch as it was', async () => {
    expect(await client.applySplit(change(2, 2500, 'first'))).to.deep.include({ epoch: 3 });
    expect((await client.getTraffic('shop')).epoch).to.equal(3);
  });

  it('publishes after kill -9 what was committed while it was dead; meanwhile Envoy serves on', async () => {
    await stack.process('control-plane').kill();
    const committed = await store.changeTraffic(change(3, 7500, 'while dead'));
    expect(committed.state.epoch).to.equal(4);
    const away = await send(port, 500);
    expect(away.failed, away.failures[0]).to.equal(0);

    await stack.start('control-plane');
    const again = await client.applySplit({ ...change(3, 7500, 'while dead'), waitMs: 10_000 });
    expect(again).to.deep.include({ epoch: 4, refused: [] });
    await waitUntil(
      async () => {
        upstreams.hits.clear();
        await send(port, 400);
        return Math.abs(upstreams.ofCell('shop-a') - 300) <= 20;
      },
      { withinMs: 20_000, what: 'Envoy follows the split that was committed' },
    );
  });

  it('takes a change by another writer from the store by itself', async () => {
    await store.changeTraffic(change(4, 1000, 'behind its back'));
    await waitUntil(
      async () => {
        upstreams.hits.clear();
        await send(port, 400);
        return Math.abs(upstreams.ofCell('shop-a') - 40) <= 15;
      },
      { withinMs: 20_000, what: 'Envoy follows the split of the other writer' },
    );
  });

  it('writes down who asked, what changed and which proxies took it, in rows that nobody can change', async () => {
    const entries = await waitUntil(
      async () => {
        const all = await store.audit.list({ service: 'shop' });
        return all.some(({ kind, epoch }) => kind === 'publish' && epoch === 5) && all;
      },
      { withinMs: 20_000, what: 'the last publication is written down' },
    );
    const byOther = entries.find(({ kind, epoch }) => kind === 'split' && epoch === 5);
    expect(byOther).to.deep.include({ by: 'tester', reason: 'test' });
    const bp = (shares: { cell: string; shareBp: number }[] | null) => shares?.map(({ shareBp }) => shareBp);
    expect([bp(byOther!.from), bp(byOther!.to)]).to.deep.equal([
      [7500, 2500],
      [1000, 9000],
    ]);
    const published = entries.find(({ kind, epoch }) => kind === 'publish' && epoch === 5)!;
    expect(published.outcome).to.equal('acknowledged');
    expect(published.details.acknowledged).to.deep.equal(['envoy']);
    expect(entries.filter(({ kind, outcome }) => kind === 'request' && outcome === 'OK')).not.to.have.length(0);

    const postgres = new Client({ connectionString: stack.settings.postgres.url });
    await postgres.connect();
    for (const change of ["update audit set by = 'nobody'", 'delete from audit', 'truncate audit']) {
      const refused = await postgres.query(change).then(
        () => '',
        (error: Error) => error.message,
      );
      expect(refused, change).to.include('append-only');
    }
    await postgres.end();
  });
});
