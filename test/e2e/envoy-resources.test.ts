/** What a service can be told to be, each before a real Envoy: gRPC, TLS, affinity, weighted clusters, mirrors, latency. */
import { credentials, makeGenericClientConstructor, type ClientDuplexStream } from '@grpc/grpc-js';
import { service as healthService } from 'grpc-health-check';
import { expect } from 'chai';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { parse } from 'yaml';
import type { CellRecord, CellShare } from '../../blueprints/records';
import type { Instance } from '../../blueprints/schema';
import { transportSettingsSchema } from '../../blueprints/transport-settings';
import { startControlPlane, type ControlPlane } from '../../envoy/control-plane';
import { envoyService } from '../../envoy/protos';
import type { Resource } from '../../envoy/resources/resource';
import { TrafficClient } from '../../envoy/traffic-client';
import { releasePorts, reservePorts } from '../../local/ports';
import { waitUntil } from '../../local/wait';
import { packageRoot } from '../../package-root';
import { TestAuthority } from '../support/certificates';
import { serviceDocument } from '../support/documents';
import { startEnvoy, type EnvoyProxy } from '../support/envoy-proxy';
import { envoyVerdict } from '../support/envoy-verdict';
import { cellRecord, MemoryTrafficStore } from '../support/memory-traffic-store';
import { Cells } from '../support/service-kinds';
import { send } from '../support/upstreams';

const log = pino({ level: process.env.LOG_LEVEL ?? 'silent' });
const services = ['calls', 'secure', 'sticky', 'routed', 'copied', 'timed', 'full', 'put'] as const;
type Service = (typeof services)[number];

describe('Kinds of services through Envoy', function () {
  this.timeout(60_000);
  const store = new MemoryTrafficStore();
  const cells = new Cells();
  const refusals = { left: 0 };
  let letGo: () => void;
  /** Until then the cells of `full` answer nothing. */
  const hasShed = new Promise<void>((resolve) => (letGo = resolve));
  const port = {} as Record<Service, number>;
  let dir: string;
  let controlPlane: ControlPlane;
  let client: TrafficClient;
  let envoy: EnvoyProxy;
  let keys = 0;

  before(async () => {
    const reserved = await reservePorts(services.length);
    services.forEach((service, i) => (port[service] = reserved[i]!));
    dir = mkdtempSync(join(tmpdir(), 'understudy-resources-'));
    const authority = new TestAuthority();
    writeFileSync(join(dir, 'ca.pem'), authority.certificate);
    const ofCellA = authority.issue({ dns: ['secure-a.cells.test'] });
    add('calls', { protocol: 'grpc' }, [await cells.grpc('calls-a', refusals), await cells.grpc('calls-b')]);
    const tls = {
      trustedCa: { file: join(dir, 'ca.pem') },
      subjectAltName: { kind: 'dns', value: '{cell}.cells.test' },
    };
    // Cell b shows the certificate of cell a.
    add('secure', { tls }, [
      await cells.http('secure-a', { tls: ofCellA }),
      await cells.http('secure-b', { tls: ofCellA }),
    ]);
    add('sticky', { affinity: { cookie: 'shop-session' } }, [
      await cells.http('sticky-a'),
      await cells.http('sticky-b'),
    ]);
    add('routed', { distribution: 'weighted-clusters' }, [await cells.http('routed-a'), await cells.http('routed-b')]);
    add('copied', { mirror: { percent: 100 } }, [await cells.http('copied-a'), await cells.http('copied-b')], {
      'copied-a-understudy-1': await cells.http('copied-a-understudy-1'),
    });
    add('timed', { latency: { samplePercent: 100 } }, [
      await cells.http('timed-a', { delayMs: 60 }),
      await cells.http('timed-b'),
    ]);
    add('full', { slo: { latencyMs: 50 } }, [
      await cells.http('full-a', { until: hasShed }),
      await cells.http('full-b', { until: hasShed }),
    ]);
    add('put', { http: { repeatable: ['PUT'] } }, [await cells.http('put-a'), await cells.http('put-b')]);
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
      log,
    );
    client = new TrafficClient(`127.0.0.1:${controlPlane.trafficPort}`);
    envoy = await startEnvoy('proxy-1', `127.0.0.1:${controlPlane.xdsPort}`);
    for (const service of ['secure', 'sticky', 'routed', 'copied', 'timed', 'put'] as const)
      await waitUntil(async () => (await send(port[service], 1)).ok === 1, {
        withinMs: 20_000,
        what: `Envoy serves ${service}`,
      });
    cells.forget();
  });

  afterEach(function () {
    if (this.currentTest?.state === 'failed') this.currentTest.err!.message += `\n${envoy.log()}`;
    cells.forget();
  });

  after(async () => {
    client?.close();
    await envoy?.stop();
    await controlPlane?.close();
    cells.stop();
    releasePorts(Object.values(port));
    rmSync(dir, { recursive: true, force: true });
  });

  function add(service: Service, settings: object, declared: Instance[][], synthetic: Record<string, Instance[]> = {}) {
    const [a, b] = [`${service}-a`, `${service}-b`];
    const record = (cell: string, instances: Instance[], change: Partial<CellRecord> = {}) =>
      cellRecord(cell, instances, { service, ...change });
    store.add(
      serviceDocument({
        name: service,
        listener: { port: port[service] },
        safeSplit: { [a]: 5000, [b]: 5000 },
        healthCheck: { intervalMs: 200 },
        ...settings,
      }),
      [
        record(a, declared[0]!),
        record(b, declared[1]!),
        ...Object.entries(synthetic).map(([cell, instances]) =>
          record(cell, instances, { role: 'synthetic', state: 'warming', sourceCell: a }),
        ),
      ],
    );
  }

  const step = async (service: Service, shares: Record<string, number>) => {
    const { epoch } = (await store.traffic(service))!;
    const split = Object.entries(shares).map(([cell, shareBp]): CellShare => ({ cell, shareBp, coverInstances: 0 }));
    const order = { service, reason: 'test', by: 'tester', idempotencyKey: `kind-${(keys += 1)}` };
    const result = await client.applySplit({ ...order, expectedEpoch: epoch, split });
    expect(result.acknowledged).to.deep.equal(['proxy-1']);
  };

  const call = (name: string): Promise<Error | null> => {
    const Stub = makeGenericClientConstructor(healthService, 'Health');
    const stub = new Stub(`127.0.0.1:${port.calls}`, credentials.createInsecure());
    const check = (stub as unknown as Record<string, (request: object, answer: (error: Error | null) => void) => void>)
      .Check!;
    return new Promise((resolve) =>
      check.call(stub, { service: name }, (error) => {
        stub.close();
        resolve(error);
      }),
    );
  };

  it('carries gRPC calls over HTTP/2 by the weights, and repeats one that a cell refuses at another', async () => {
    await waitUntil(async () => (await envoy.stat('cluster.calls.membership_healthy')) === 2, {
      withinMs: 10_000,
      what: "both cells pass gRPC's own health check",
    });
    for (let n = 0; n < 20; n += 1) expect(await call('caller')).to.equal(null);
    expect(cells.of('calls-a')).to.be.within(8, 12);
    expect(await envoy.stat('cluster.calls.upstream_cx_http2_total')).to.be.greaterThan(0);
    refusals.left = 3;
    for (let n = 0; n < 10; n += 1) expect(await call('flaky')).to.equal(null);
    expect(refusals.left).to.be.at.most(0);
  });

  it("sends nothing to a server that shows another cell's certificate, neither live traffic nor probes", async () => {
    const answers = await send(port.secure, 40);
    expect(answers.failed, answers.failures[0]).to.equal(0);
    expect(cells.of('secure-a')).to.equal(40);
    expect(await envoy.stat('cluster.secure.membership_healthy')).to.equal(1);
    const probe = await send(port.secure, 1, { headers: { 'x-understudy-cell': 'secure-b' } });
    expect(probe.failed).to.equal(1);
    expect(cells.of('secure-b')).to.equal(0);
    expect(await envoy.stat('cluster.secure|secure-b.ssl.fail_verify_san')).to.be.greaterThan(0);
    expect(await envoy.stat('cluster.secure|secure-a.ssl.fail_verify_san')).to.equal(0);
  });

  it('keeps sessions at their instance over a shift, gives new ones by the weights, and ends them when a cell is drained', async () => {
    const visit = async (cookie?: string): Promise<{ cell: string; cookie: string | undefined }> => {
      const response = await fetch(`http://127.0.0.1:${port.sticky}/`, cookie ? { headers: { cookie } } : {});
      expect(response.status).to.equal(200);
      return { cell: await response.text(), cookie: response.headers.get('set-cookie')?.split(';')[0] };
    };
    await step('sticky', { 'sticky-a': 10_000 });
    const sessions = await Promise.all(Array.from({ length: 10 }, () => visit()));
    expect(sessions.map(({ cell }) => cell)).to.deep.equal(Array(10).fill('sticky-a'));
    await step('sticky', { 'sticky-a': 1000, 'sticky-b': 9000 });
    await waitUntil(async () => (await visit()).cell === 'sticky-b', {
      withinMs: 10_000,
      what: 'the other cell is used',
    });
    for (const { cookie } of sessions) expect((await visit(cookie)).cell).to.equal('sticky-a');
    let newcomers = 0;
    for (let n = 0; n < 100; n += 1) if ((await visit()).cell === 'sticky-b') newcomers += 1;
    expect(newcomers).to.be.within(85, 95);
    // Named without a share: the cell drains.
    await step('sticky', { 'sticky-a': 0, 'sticky-b': 10_000 });
    const moved = await visit(sessions[0]!.cookie);
    expect(moved.cell).to.equal('sticky-b');
    expect(moved.cookie, 'a new cookie').to.be.a('string').and.not.equal(sessions[0]!.cookie);
    expect((await visit(moved.cookie)).cell).to.equal('sticky-b');
  });

  it('follows the shares among weighted clusters, and measures them per cell', async () => {
    for (const share of [7000, 1500]) {
      await step('routed', { 'routed-a': share, 'routed-b': 10_000 - share });
      cells.forget();
      const answers = await send(port.routed, 1000);
      expect(answers.failed, answers.failures[0]).to.equal(0);
      // Picked at random: five standard deviations.
      const spread = 5 * Math.sqrt(1000 * (share / 10_000) * (1 - share / 10_000));
      expect(cells.of('routed-a')).to.be.closeTo(share / 10, spread);
    }
    await waitUntil(
      async () => (await client.getTraffic('routed')).cells.every((c) => c.measured && c.requestsTotal > 0),
      { withinMs: 10_000, what: 'both cells are measured' },
    );
    const reached = await send(port.routed, 10, { headers: { 'x-understudy-cell': 'routed-b' } });
    expect(reached.failed).to.equal(0);
    expect(await envoy.stat('cluster.routed|routed-b.upstream_rq_total')).to.equal(10);
  });

  it('sheds what is beyond the limit, and counts it as no error of a cell', async () => {
    await waitUntil(async () => (await envoy.stat('cluster.full.membership_healthy')) === 2, {
      withinMs: 10_000,
      what: 'both cells are healthy at Envoy',
    });
    let shed = 0;
    const statuses = Array.from({ length: 160 }, async () => {
      const { status } = await fetch(`http://127.0.0.1:${port.full}/`);
      if (status === 503) shed += 1;
      return status;
    });
    const held = () => cells.of('full-a') + cells.of('full-b');
    await waitUntil(() => shed + held() === 160, {
      withinMs: 10_000,
      what: 'every request is shed, or waits at a cell',
      instead: () => `${shed} are shed and ${held()} wait`,
    });
    letGo();
    expect(shed).to.be.within(40, 60);
    expect((await Promise.all(statuses)).filter((status) => status === 200)).to.have.length(160 - shed);
    const loads = async () => (await client.getTraffic('full')).cells;
    await waitUntil(async () => (await loads()).reduce((sum, c) => sum + c.requestsTotal, 0) >= 160 - shed, {
      withinMs: 10_000,
      what: 'load reports come',
    });
    for (const { cell, errorsTotal } of await loads()) expect(errorsTotal, cell).to.equal(0);
  });

  it('repeats what only reads if its answer is lost, and of the writes what the document allows', async () => {
    const asked = async (service: Service, method: string) => {
      cells.forget();
      const { status } = await fetch(`http://127.0.0.1:${port[service]}/lost`, { method });
      expect(status, method).to.equal(503);
      return [...cells.hits.values()].reduce((a, b) => a + b, 0);
    };
    expect(await asked('routed', 'GET')).to.equal(3);
    for (const method of ['PUT', 'DELETE', 'POST', 'PATCH']) expect(await asked('routed', method), method).to.equal(1);
    expect(await asked('put', 'PUT')).to.equal(3);
    for (const method of ['DELETE', 'POST']) expect(await asked('put', method), method).to.equal(1);
  });

  it('copies what only reads to a cell that warms up; its load is not the service’s', async () => {
    const synthetic = 'copied-a-understudy-1';
    await send(port.copied, 30);
    await waitUntil(() => cells.of(synthetic) === 30, { withinMs: 10_000, what: 'the copies arrive' });
    const post = await fetch(`http://127.0.0.1:${port.copied}/`, { method: 'POST', body: 'x' });
    expect(await post.text()).to.not.equal(synthetic);
    await send(port.copied, 5, { headers: { 'x-understudy-cell': synthetic } });
    await waitUntil(() => cells.of(synthetic) === 35, { withinMs: 10_000, what: 'the probes arrive' });
    expect(cells.methods.get(synthetic)).to.deep.equal(Array(35).fill('GET'));
    await waitUntil(async () => (await client.getTraffic('copied')).cells.some((c) => c.requestsTotal > 0), {
      withinMs: 10_000,
      what: 'load reports come',
    });
    expect((await client.getTraffic('copied')).cells.map(({ cell }) => cell)).to.not.include(synthetic);
    const copies = async () => (await client.getTraffic('copied')).copies?.find(({ cell }) => cell === synthetic);
    await waitUntil(
      async () => {
        const { requestsTotal = 0, requestsInFlight } = (await copies()) ?? {};
        return requestsTotal >= 35 && requestsInFlight === 0;
      },
      {
        withinMs: 10_000,
        what: 'the copies are told apart from live traffic, and all are answered',
        instead: async () => JSON.stringify(await copies()),
      },
    );
    expect((await copies())!.errorsTotal).to.equal(0);

    store.allCells.find(({ name }) => name === synthetic)!.state = 'armed';
    store.notify('copied');
    await waitUntil(
      async () => {
        cells.forget();
        await send(port.copied, 5);
        return cells.of(synthetic) === 0;
      },
      { withinMs: 10_000, what: 'copies end when the cell is warm' },
    );
  });

  it('tells latency per cell from the requests that were sampled, and how sure the measured share is', async () => {
    const view = async () => {
      await send(port.timed, 50);
      const { cells: measured } = await client.getTraffic('timed');
      return Object.fromEntries(measured.map((cell) => [cell.cell, cell]));
    };
    await waitUntil(async () => Object.values(await view()).every((c) => (c.latency?.samples ?? 0) >= 100), {
      withinMs: 30_000,
      what: 'a hundred requests of each cell are sampled',
    });
    const { 'timed-a': a, 'timed-b': b } = await view();
    // A quantile is within 1 % of the truth.
    expect(a!.latency!.p50Ms).to.be.at.least(59);
    expect(a!.latency!.p99Ms).to.be.at.least(a!.latency!.p50Ms);
    expect(b!.latency!.p50Ms).to.be.below(a!.latency!.p50Ms);
    expect(a!.requestsSeen).to.be.greaterThan(0);
    expect(a!.measuredLowBp).to.be.below(5000);
    expect(a!.measuredHighBp).to.be.above(5000);
  });

  it('names a proxy that is connected and has stopped reporting', async () => {
    const Lrs = makeGenericClientConstructor(envoyService('envoy.service.load_stats.v3.LoadReportingService'), 'Lrs');
    const lrs = new Lrs(`127.0.0.1:${controlPlane.xdsPort}`, credentials.createInsecure());
    const open = (lrs as unknown as Record<string, () => ClientDuplexStream<object, object>>).StreamLoadStats!;
    const stream = open.call(lrs);
    stream.on('error', () => undefined);
    stream.resume();
    stream.write({ node: { id: 'mute' } });
    const proxies = async () => (await client.getTraffic('timed')).cells[0]!;
    await waitUntil(async () => (await proxies()).startingProxies!.includes('mute'), {
      withinMs: 10_000,
      what: 'it is known to be starting',
    });
    await waitUntil(async () => (await proxies()).silentProxies!.includes('mute'), {
      withinMs: 10_000,
      what: 'it is known to be silent',
    });
    stream.end();
    await waitUntil(async () => !(await proxies()).silentProxies!.includes('mute'), {
      withinMs: 10_000,
      what: 'it is forgotten when it has gone',
    });
    lrs.close();
  });
});

describe('Golden resources', function () {
  this.timeout(60_000);
  const golden = join(packageRoot, 'test', 'golden', 'envoy');
  const files = readdirSync(golden).filter((file) => file.endsWith('.out.yaml'));

  it('are there', () => expect(files).to.not.deep.equal([]));

  for (const file of files)
    it(`${file} is valid to Envoy itself`, async () => {
      const resources = parse(readFileSync(join(golden, file), 'utf8')) as Resource[];
      expect(await envoyVerdict(resources)).to.equal('valid');
    });
});
