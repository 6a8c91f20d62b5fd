/** What the control plane shows of itself over HTTP: health, metrics, and to those who may see it, what it holds. */
import { expect } from 'chai';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { startControlPlane, type ControlPlane } from '../../envoy/control-plane';
import { readiness } from '../../envoy/operations/readiness';
import { waitUntil } from '../../local/wait';
import { serviceDocument } from '../support/documents';
import { cellRecord, MemoryTrafficStore } from '../support/memory-traffic-store';
import { XdsClient } from '../support/xds-client';

const log = pino({ level: 'silent' });

describe('Readiness', () => {
  const ready = {
    hasPublished: () => true,
    isListening: () => true,
    isStopping: () => false,
    storeAgeS: (): number | undefined => 1,
    storeProblem: (): string | undefined => undefined,
    concerns: (): string[] => [],
  };

  it('is not there before everything has been published, and says why', () => {
    const state = readiness({
      ...ready,
      hasPublished: () => false,
      storeAgeS: () => undefined,
      storeProblem: () => 'connection refused',
    });
    expect(state.status).to.equal('not ready');
    expect(state.reasons).to.deep.equal(['the Configuration Data Store has not been read yet: connection refused']);
  });

  it('is degraded, not gone, when Postgres is away: proxies keep what they have', () => {
    const state = readiness({ ...ready, storeAgeS: () => 31, storeProblem: () => 'connection refused' });
    expect(state.status).to.equal('degraded');
    expect(state.reasons[0]).to.match(/last read 31 s ago \(connection refused\)/);
    expect(readiness(ready)).to.deep.equal({ status: 'ready', reasons: [] });
  });

  it('ends when the control plane stops', () => {
    expect(readiness({ ...ready, isStopping: () => true }).status).to.equal('not ready');
  });
});

describe('Operations of the control plane', function () {
  this.timeout(30_000);
  let dir: string;
  let store: MemoryTrafficStore;
  let controlPlane: ControlPlane;
  const clients: XdsClient[] = [];

  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'understudy-operations-'));
    writeFileSync(join(dir, 'token'), 'first\n');
    store = new MemoryTrafficStore();
    const instance = (name: string, port: number) => ({ name, address: '127.0.0.1', port });
    store.add(serviceDocument(), [
      cellRecord('shop-a', [instance('shop-a-1', 1)]),
      cellRecord('shop-b', [instance('shop-b-1', 2)]),
    ]);
    controlPlane = await startControlPlane(
      store,
      {
        xdsAddress: '127.0.0.1:0',
        trafficAddress: '127.0.0.1:0',
        operations: { tokenFile: join(dir, 'token') },
      },
      log,
    );
  });
  afterEach(async () => {
    for (const client of clients.splice(0)) client.close();
    await controlPlane.close();
    rmSync(dir, { recursive: true, force: true });
  });

  const get = async (path: string, token?: string): Promise<{ status: number; body: string }> => {
    const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
    const response = await fetch(`http://${controlPlane.operationsAddress}${path}`, { headers });
    return { status: response.status, body: await response.text() };
  };
  const connect = (node: string): XdsClient => {
    const client = new XdsClient(controlPlane.xdsPort, 'delta', node);
    clients.push(client);
    return client;
  };
  /** The value of a metric line that begins with that text; undefined if there is none. */
  const metric = async (line: string): Promise<number | undefined> => {
    const { body } = await get('/metrics');
    const found = body.split('\n').find((each) => each.startsWith(`${line} `));
    return found === undefined ? undefined : Number(found.slice(line.length + 1));
  };
  const change = (epoch: number, a: number) =>
    store.changeTraffic({
      service: 'shop',
      expectedEpoch: epoch,
      split: [
        { cell: 'shop-a', shareBp: a, coverInstances: 0 },
        { cell: 'shop-b', shareBp: 10_000 - a, coverInstances: 0 },
      ],
      reason: 'test',
      by: 'tester',
      idempotencyKey: `to ${a}`,
    });

  it('is live and ready once its ports are open', async () => {
    expect(await get('/livez')).to.deep.equal({ status: 200, body: 'live\n' });
    const { status, body } = await get('/readyz');
    expect(status).to.equal(200);
    expect(JSON.parse(body)).to.deep.equal({ status: 'ready', reasons: [] });
  });

  it('says which service cannot be published, and is degraded by it', async () => {
    store.allServices.push({ name: 'twin', spec: serviceDocument({ name: 'twin' }) });
    store.states.set('twin', { service: 'twin', epoch: 1, split: [] });
    store.notify(null);
    const state = await waitUntil(
      async () => {
        const read = JSON.parse((await get('/readyz')).body) as { status: string; reasons: string[] };
        return read.status === 'degraded' && read;
      },
      { withinMs: 5000, what: 'it is degraded' },
    );
    expect(state.reasons[0]).to.match(/^service twin cannot be published/);
    expect((await get('/readyz')).status).to.equal(200);
    expect((await get('/readyz?strict')).status).to.equal(503);
    expect(await metric('understudy_build_failing_services')).to.equal(1);
  });

  it('counts pushes, convergence, refusals by node and stale nonces', async () => {
    const client = connect('edge-1');
    client.send('endpoints', { resource_names_subscribe: ['shop'] });
    await client.accept('endpoints');
    await change(1, 9000);
    await client.accept('endpoints');
    await waitUntil(async () => (await metric('understudy_xds_convergence_seconds_count')) === 1, {
      withinMs: 5000,
      what: 'the publication has converged',
    });
    expect(await metric('understudy_xds_pushes_total{type="endpoints",protocol="delta"}')).to.equal(2);
    expect(await metric('understudy_xds_push_seconds_count{type="endpoints"}')).to.equal(2);
    const connected = 'understudy_xds_connected_proxies{protocol="delta",version="unknown",state=';
    expect(await metric(`${connected}"converged"}`)).to.equal(1);

    await change(2, 8000);
    client.nack(await client.take('endpoints'), 'no');
    await waitUntil(async () => (await metric('understudy_xds_rejects_total{type="endpoints",node="edge-1"}')) === 1, {
      withinMs: 5000,
      what: 'the refusal is counted',
    });
    expect(await metric(`${connected}"refusing"}`)).to.equal(1);
    client.send('endpoints', { response_nonce: 'long ago' });
    await waitUntil(async () => (await metric('understudy_xds_expired_nonces_total{type="endpoints"}')) === 1, {
      withinMs: 5000,
      what: 'the stale nonce is counted',
    });
    expect(await metric('understudy_xds_config_resources{type="endpoints"}')).to.be.greaterThan(0);
  });

  it('keeps refusals of ever new nodes within a hundred labels', async () => {
    for (let n = 0; n < 110; n += 1) {
      const client = connect(`edge-${n}`);
      client.send('endpoints', { resource_names_subscribe: ['shop'] });
      client.nack(await client.take('endpoints'), 'no');
      await waitUntil(() => controlPlane.xds.counts.nacks > n, { withinMs: 5000, everyMs: 2, what: 'it is heard' });
      client.close();
    }
    const other = 'understudy_xds_rejects_total{type="endpoints",node="other"}';
    await waitUntil(async () => (await metric(other)) === 10, { withinMs: 10_000, what: 'all refusals are counted' });
  });

  it('shows proxies and configuration to who has the token, as it is in its file now', async () => {
    const client = connect('edge-1');
    client.send('endpoints', { resource_names_subscribe: ['shop'] });
    client.nack(await client.take('endpoints'), 'weights are odd');
    await waitUntil(() => controlPlane.xds.counts.nacks === 1, { withinMs: 5000, what: 'the refusal is heard' });

    for (const path of ['/proxies', '/config_dump']) {
      expect((await get(path)).status, path).to.equal(401);
      expect((await get(path, 'wrong')).status, path).to.equal(401);
      expect((await get(path, 'first')).status, path).to.equal(200);
    }
    const { proxies } = JSON.parse((await get('/proxies', 'first')).body) as { proxies: object[] };
    const [{ wanted }] = (proxies[0] as { types: { resources: { wanted: string }[] }[] }).types[0]!.resources as [
      { wanted: string },
    ];
    expect(proxies).to.have.length(1);
    expect(proxies[0]).to.deep.include({
      node: 'edge-1',
      identity: '',
      protocol: 'delta',
      state: 'refusing',
      types: [
        {
          type: 'endpoints',
          subscribed: 1,
          resources: [{ name: 'shop', holds: null, wanted, state: 'refused', error: 'weights are odd' }],
        },
      ],
    });
    const dump = JSON.parse((await get('/config_dump', 'first')).body) as { resources: { name: string }[] };
    expect(dump.resources.map(({ name }) => name)).to.include('shop');

    writeFileSync(join(dir, 'token'), 'second\n');
    expect((await get('/proxies', 'first')).status).to.equal(401);
    expect((await get('/proxies', 'second')).status).to.equal(200);
    rmSync(join(dir, 'token'));
    expect((await get('/proxies', '')).status).to.equal(401);
  });
});
