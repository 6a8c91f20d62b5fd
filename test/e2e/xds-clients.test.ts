/** The xDS server before clients that nobody here wrote: Envoy in both protocols, grpc-js and gRPC's C core. */
import { expect } from 'chai';
import { fork, type ChildProcess } from 'node:child_process';
import { get } from 'node:http';
import { join } from 'node:path';
import type { Instance } from '../../blueprints/schema';
import { duration, type EnvoyMessage } from '../../envoy/protos';
import type { Resource } from '../../envoy/resources/resource';
import { serviceResources } from '../../envoy/resources/service';
import { releasePorts, reservePorts } from '../../local/ports';
import { waitUntil } from '../../local/wait';
import { packageRoot } from '../../package-root';
import { blueprintDocument, serviceDocument } from '../support/documents';
import { startEnvoy, type EnvoyProxy } from '../support/envoy-proxy';
import { GrpcCells, GrpcClient, grpcioPackages } from '../support/grpc-clients';
import { cellRecord } from '../support/memory-traffic-store';
import { send, Upstreams } from '../support/upstreams';
import { XdsWorld } from '../support/xds-world';

/** Service `shop` with this share for cell a and the rest for b, and further cells that carry nothing. */
function shop(cells: Record<string, Instance[]>, a: number, service: Record<string, unknown>): Resource[] {
  return serviceResources({
    // The instances live in this process: when it is busy with its own for a moment, that is no death of theirs.
    service: { name: 'shop', spec: serviceDocument({ healthCheck: { intervalMs: 10_000 }, ...service }) },
    cells: Object.entries(cells).map(([name, instances]) => cellRecord(name, instances)),
    traffic: {
      service: 'shop',
      epoch: 1,
      split: [
        { cell: 'shop-a', shareBp: a, coverInstances: 0 },
        { cell: 'shop-b', shareBp: 10_000 - a, coverInstances: 0 },
      ],
    },
    blueprints: [{ name: 'shop', version: 1, spec: blueprintDocument() }],
  });
}

/** Callers that never rest, until they are told to. */
class Load {
  readonly failures: string[] = [];
  ok = 0;
  private isOver = false;
  private readonly done: Promise<void>;

  constructor(port: number) {
    this.done = (async () => {
      while (!this.isOver) {
        const { ok, failures } = await send(port, 40, { concurrency: 4 });
        this.ok += ok;
        this.failures.push(...failures);
      }
    })();
  }

  async stop(): Promise<void> {
    this.isOver = true;
    await this.done;
  }
}

for (const apiType of ['DELTA_GRPC', 'GRPC'] as const) {
  describe(`xDS before a real Envoy by ${apiType}`, function () {
    this.timeout(60_000);
    let world: XdsWorld;
    let upstreams: Upstreams;
    let envoy: EnvoyProxy;
    let port: number;
    let cells: Record<string, Instance[]>;
    const split = (a: number): Resource[] => shop(cells, a, { listener: { port } });

    before(async () => {
      [port] = (await reservePorts(1)) as [number];
      upstreams = new Upstreams();
      cells = { 'shop-a': await upstreams.start('shop-a', 2), 'shop-b': await upstreams.start('shop-b', 2) };
      world = await XdsWorld.start();
      world.publish(...split(5000));
      envoy = await startEnvoy('proxy', `127.0.0.1:${world.port}`, apiType);
      await waitUntil(async () => (await send(port, 1)).ok === 1, { withinMs: 20_000, what: 'Envoy serves the shop' });
    });
    after(async () => {
      await envoy?.stop();
      world?.stop();
      upstreams?.stop();
      releasePorts([port]);
    });
    beforeEach(() => upstreams.hits.clear());

    it('RES-6, ORDER-6 no request fails over many weight steps under load, and each step is one response', async () => {
      const load = new Load(port);
      const before = world.xds.counts.responses;
      const steps = 60;
      for (let step = 1; step <= steps; step += 1) {
        const { acked } = await world.publishAndWait(5000, ...split(5000 + ((step * 137) % 4900)));
        expect(acked, `step ${step}`).to.deep.equal(['proxy']);
      }
      await world.publishAndWait(5000, ...split(8000));
      await load.stop();
      expect(load.failures).to.deep.equal([]);
      expect(load.ok).to.be.above(100);
      expect(world.xds.counts.responses - before).to.equal(steps + 1);
      expect(world.xds.counts.nacks).to.equal(0);
      upstreams.hits.clear();
      await send(port, 2000);
      expect(upstreams.ofCell('shop-a')).to.be.closeTo(1600, 20);
    });

    it('ORDER-2, ORDER-3 cells come and go under load, clusters and routes with them, without a failed request', async () => {
      const load = new Load(port);
      for (let round = 0; round < 5; round += 1) {
        const more = { ...cells, 'shop-c': await upstreams.start('shop-c', 1) };
        await world.publishAndWait(10_000, ...shop(more, 6000, { listener: { port } }));
        const probe = await send(port, 5, { headers: { 'x-understudy-cell': 'shop-c' } });
        expect(probe.failures, 'the new cell can be reached as soon as the change is accepted').to.deep.equal([]);
        await world.publishAndWait(10_000, ...split(5000));
        upstreams.kill('shop-c-1');
      }
      await load.stop();
      expect(load.failures).to.deep.equal([]);
      await waitUntil(async () => (await envoy.stats('cluster.shop|shop-c.membership_total')).size === 0, {
        withinMs: 10_000,
        what: 'the cluster of the cell that went has gone from Envoy',
      });
    });

    it('NACK-2, NACK-5 a bad resource is refused by name and not sent again, and the last good one stays in use', async () => {
      const good = split(5000);
      const bad = good.map((resource) =>
        resource.type === 'endpoints' && resource.name === 'shop'
          ? { ...resource, message: withPriority(resource.message, 200) }
          : resource,
      );
      await world.publishAndWait(5000, ...good);
      const refusals = world.xds.counts.nacks;
      const { nacked } = await world.publishAndWait(5000, ...bad);
      expect(nacked.map(({ node, type, resource }) => `${node} ${type} ${resource}`)).to.deep.equal([
        'proxy endpoints shop',
      ]);
      expect(nacked[0]!.error).to.match(/priority/i);
      expect((await send(port, 200)).failures).to.deep.equal([]);
      world.publish(...good);
      world.publish(...bad);
      expect((await world.publishAndWait(5000, ...split(7000))).acked).to.deep.equal(['proxy']);
      expect(world.xds.counts.nacks - refusals).to.equal(1);
    });

    it('SOTW-5, DELTA-2 a cluster whose endpoints do not exist yet holds nothing up, and works once they do', async () => {
      const own = (type: Resource['type']): Resource => split(5000).find((r) => r.type === type && r.name === 'shop')!;
      const late: Resource = {
        ...own('cluster'),
        name: 'late',
        references: [{ type: 'endpoints', name: 'late' }],
        message: {
          ...own('cluster').message,
          name: 'late',
          eds_cluster_config: { service_name: 'late', eds_config: { resource_api_version: 'V3', ads: {} } },
        },
      };
      const load = new Load(port);
      world.publish(...split(5000), late);
      await waitUntil(
        async () =>
          /late/.test(await envoy.admin('/config_dump?resource=dynamic_warming_clusters')) ||
          (await envoy.stats('cluster.late.')).size > 0,
        {
          withinMs: 10_000,
          what: 'Envoy has the cluster',
        },
      );
      expect((await world.publishAndWait(5000, ...split(9000), late)).acked).to.deep.equal(['proxy']);
      const { message } = own('endpoints');
      const assignment = { ...own('endpoints'), name: 'late', message: { ...message, cluster_name: 'late' } };
      await world.publishAndWait(20_000, ...split(9000), late, assignment);
      await waitUntil(async () => (await envoy.stat('cluster.late.membership_total')) === 4, {
        withinMs: 20_000,
        what: 'the late cluster has its endpoints',
      });
      await world.publishAndWait(10_000, ...split(5000));
      await load.stop();
      expect(load.failures).to.deep.equal([]);
    });

    it('RES-2, DELTA-7, SOTW-11 an Envoy that comes back goes on without a failed request, by delta without a resource', async () => {
      await world.publishAndWait(5000, ...split(6000));
      const load = new Load(port);
      const { port: xdsPort } = world;
      world.stop();
      world = await XdsWorld.start({}, xdsPort);
      world.publish(...split(6000));
      await waitUntil(() => world.xds.proxies().length === 1, { withinMs: 20_000, what: 'Envoy is back' });
      await waitUntil(async () => (await world.publishAndWait(5000, ...split(6001))).acked.length === 1, {
        withinMs: 20_000,
        what: 'Envoy has taken a step',
      });
      await load.stop();
      expect(load.failures).to.deep.equal([]);
      expect(world.xds.counts.nacks).to.equal(0);
      if (apiType === 'DELTA_GRPC') expect(world.xds.counts.responses, 'the step alone').to.equal(1);
      expect(
        await envoy.stats('init_fetch_timeout').then((all) => [...all.values()].filter((n) => n > 0)),
      ).to.have.length.below(2);
    });
  });
}

describe('RES-5 the control plane is killed in the middle of a step', function () {
  this.timeout(60_000);
  let upstreams: Upstreams;
  let envoy: EnvoyProxy;
  let child: ChildProcess;
  let ports: [number, number];
  let seen: { port?: number; proxies?: string[]; responses?: number } = {};

  const startXds = async (resources: Resource[]): Promise<void> => {
    seen = {};
    child = fork(join(packageRoot, 'dist', 'test', 'support', 'xds-process.js'), [String(ports[1])]);
    child.on('message', (message: typeof seen) => (seen = { ...seen, ...message }));
    child.send(resources);
    await waitUntil(() => seen.port, { withinMs: 20_000, what: 'the control plane listens' });
  };

  before(async () => {
    ports = (await reservePorts(2)) as [number, number];
    upstreams = new Upstreams();
  });
  after(async () => {
    await envoy?.stop();
    child?.kill('SIGKILL');
    upstreams.stop();
    releasePorts(ports);
  });

  it('RES-5 Envoy keeps the old split or has the new one, no request fails, and it follows the next control plane', async () => {
    const cells = { 'shop-a': await upstreams.start('shop-a', 2), 'shop-b': await upstreams.start('shop-b', 2) };
    const split = (a: number): Resource[] => shop(cells, a, { listener: { port: ports[0] } });
    await startXds(split(2000));
    envoy = await startEnvoy('proxy', `127.0.0.1:${ports[1]}`);
    await waitUntil(async () => (await send(ports[0], 1)).ok === 1, {
      withinMs: 20_000,
      what: 'Envoy serves the shop',
    });
    const load = new Load(ports[0]);
    for (let round = 0; round < 2; round += 1) {
      child.send(split(8000));
      child.kill('SIGKILL');
      upstreams.hits.clear();
      expect((await send(ports[0], 500)).failures).to.deep.equal([]);
      const total = upstreams.ofCell('shop-a') + upstreams.ofCell('shop-b');
      const share = upstreams.ofCell('shop-a') / total;
      expect(Math.min(Math.abs(share - 0.2), Math.abs(share - 0.8)), `${share} is one of the two`).to.be.below(0.05);
      await startXds(split(5000));
      await waitUntil(
        async () => {
          upstreams.hits.clear();
          await send(ports[0], 300);
          const all = upstreams.ofCell('shop-a') + upstreams.ofCell('shop-b');
          return Math.abs(upstreams.ofCell('shop-a') / all - 0.5) < 0.03;
        },
        { withinMs: 20_000, what: 'Envoy follows the control plane that came after' },
      );
      child.send(split(2000));
      await waitUntil(
        async () => {
          upstreams.hits.clear();
          await send(ports[0], 300);
          const all = upstreams.ofCell('shop-a') + upstreams.ofCell('shop-b');
          return Math.abs(upstreams.ofCell('shop-a') / all - 0.2) < 0.03;
        },
        { withinMs: 20_000, what: 'Envoy is back at the old split' },
      );
    }
    await load.stop();
    expect(load.failures).to.deep.equal([]);
  });
});

describe('RES-8 how Envoy follows an assignment', function () {
  this.timeout(60_000);
  let world: XdsWorld;
  let upstreams: Upstreams;
  let envoy: EnvoyProxy;
  let port: number;
  let a: Instance[];
  let b: Instance[];

  interface Place {
    cell: string;
    hosts: Instance[];
    priority?: number;
    weight?: number;
    bad?: number;
    status?: string;
    zone?: string;
  }
  const assignment = (places: Place[]): Resource => ({
    type: 'endpoints',
    name: 'shop',
    references: [],
    message: {
      cluster_name: 'shop',
      endpoints: places.map(({ cell, hosts, priority = 0, weight, bad = 0, status = 'UNHEALTHY', zone = 'z' }) => ({
        locality: { region: 'r', zone, sub_zone: cell },
        priority,
        ...(weight && { load_balancing_weight: { value: weight } }),
        lb_endpoints: hosts.map((host, i) => ({
          endpoint: { address: { socket_address: { address: host.address, port_value: host.port } } },
          ...(i < bad && { health_status: status }),
        })),
      })),
    },
  });
  const base = (): Resource[] =>
    shop({ 'shop-a': a, 'shop-b': b }, 5000, { listener: { port } })
      .filter(({ name, type }) => name === 'shop' && type !== 'endpoints')
      .map((resource) => {
        if (resource.type === 'route') return plainRoute();
        if (resource.type !== 'cluster') return resource;
        const { health_checks: _, outlier_detection: __, ...message } = resource.message;
        return { ...resource, message };
      });
  const plainRoute = (): Resource => ({
    type: 'route',
    name: 'shop',
    references: [{ type: 'cluster', name: 'shop' }],
    message: {
      name: 'shop',
      virtual_hosts: [
        {
          name: 'shop',
          domains: ['*'],
          routes: [{ match: { prefix: '/' }, route: { cluster: 'shop', timeout: duration(15_000) } }],
        },
      ],
    },
  });
  /** Envoy picks a priority at random: of so many, 6 % are more than five standard deviations. */
  const requests = 1600;
  /** Percent of requests that reach b once Envoy has this assignment; none may fail. */
  const shareOfB = async (...places: Place[]): Promise<number> => {
    const { acked } = await world.publishAndWait(5000, ...base(), assignment(places));
    expect(acked).to.deep.equal(['proxy']);
    upstreams.hits.clear();
    const { failures } = await send(port, requests, { concurrency: 4 });
    expect(failures).to.deep.equal([]);
    return (100 * upstreams.ofCell('b')) / requests;
  };

  before(async () => {
    [port] = (await reservePorts(1)) as [number];
    upstreams = new Upstreams();
    a = await upstreams.start('a', 4);
    b = await upstreams.start('b', 4);
    world = await XdsWorld.start();
    world.publish(...base(), assignment([{ cell: 'a', hosts: a, weight: 1 }]));
    envoy = await startEnvoy('proxy', `127.0.0.1:${world.port}`);
    await waitUntil(async () => (await send(port, 1)).ok === 1, { withinMs: 20_000, what: 'Envoy serves the shop' });
  });
  after(async () => {
    await envoy?.stop();
    world?.stop();
    upstreams?.stop();
    releasePorts([port]);
  });

  it('RES-8 b armed behind a takes 0, 30, 65 and 100 % as a loses 1, 2, 3 and 4 of 4 hosts', async () => {
    const armed: Place = { cell: 'b', hosts: b, priority: 1, weight: 1 };
    const shares: number[] = [];
    for (const bad of [1, 2, 3, 4]) shares.push(await shareOfB({ cell: 'a', hosts: a, weight: 1, bad }, armed));
    [0, 30, 65, 100].forEach((expected, i) => expect(shares[i], `${i + 1} of 4`).to.be.closeTo(expected, 6));
  });

  it('RES-8 b armed without a weight takes everything when a is dead', async () => {
    expect(await shareOfB({ cell: 'a', hosts: a, weight: 1, bad: 4 }, { cell: 'b', hosts: b, priority: 1 })).to.equal(
      100,
    );
  });

  it('RES-8 b beside a without a weight takes nothing until all of a is bad, and then everything', async () => {
    const beside: Place = { cell: 'b', hosts: b };
    expect(await shareOfB({ cell: 'a', hosts: a, weight: 1, bad: 3 }, beside)).to.equal(0);
    expect(await shareOfB({ cell: 'a', hosts: a, weight: 1, bad: 4 }, beside)).to.equal(100);
  });

  it('RES-8 b at 1 % takes little more when half of a is bad, and everything when all is', async () => {
    const canary: Place = { cell: 'b', hosts: b, weight: 100 };
    expect(await shareOfB({ cell: 'a', hosts: a, weight: 9900, bad: 2 }, canary)).to.be.closeTo(1.4, 1.2);
    expect(await shareOfB({ cell: 'a', hosts: a, weight: 9900, bad: 4 }, canary)).to.equal(100);
  });

  it('RES-8 hosts that move between priorities keep their connections; a renamed locality makes new hosts', async () => {
    await shareOfB({ cell: 'a', hosts: a, weight: 1, bad: 4 }, { cell: 'b', hosts: b, priority: 1, weight: 1 });
    const connections = async (): Promise<number> => {
      const lines = (await envoy.admin('/clusters')).split('\n');
      const ofB = lines.filter((line) => b.some(({ port: p }) => line.startsWith(`shop::127.0.0.1:${p}::rq_total`)));
      return ofB.reduce((sum, line) => sum + Number(line.split('::').at(-1)), 0);
    };
    const before = await connections();
    expect(before).to.be.at.least(requests);
    await world.publishAndWait(
      5000,
      ...base(),
      assignment([
        { cell: 'a', hosts: a, weight: 1 },
        { cell: 'b', hosts: b, weight: 1 },
      ]),
    );
    expect(await connections(), 'the same hosts').to.equal(before);
    await world.publishAndWait(
      5000,
      ...base(),
      assignment([
        { cell: 'a', hosts: a, weight: 1 },
        { cell: 'b', hosts: b, weight: 1, zone: 'renamed' },
      ]),
    );
    expect(await connections(), 'new hosts').to.equal(0);
  });

  it('RES-8 when all of a drains, everything goes to b and nothing fails', async () => {
    const draining: Place = { cell: 'a', hosts: a, weight: 9900, bad: 4, status: 'DRAINING' };
    expect(await shareOfB(draining, { cell: 'b', hosts: b, weight: 100 })).to.equal(100);
  });

  it('RES-8 requests in flight to a cell that is removed are answered', async () => {
    await shareOfB({ cell: 'a', hosts: a, weight: 1 });
    const held = upstreams.hold('a');
    const answers = Array.from({ length: 10 }, () => request(port));
    await waitUntil(() => held.waiting() === 10, { withinMs: 5000, what: 'ten requests are in flight' });
    await world.publishAndWait(5000, ...base(), assignment([{ cell: 'b', hosts: b, weight: 1 }]));
    held.release();
    expect(await Promise.all(answers)).to.deep.equal(Array<number>(10).fill(200));
  });
});

function request(port: number): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    get({ host: '127.0.0.1', port, path: '/', agent: false }, (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode));
    }).on('error', reject);
  });
}

function withPriority(message: EnvoyMessage, priority: number): EnvoyMessage {
  const [first, ...others] = message.endpoints as EnvoyMessage[];
  return { ...message, endpoints: [{ ...first, priority }, ...others] };
}

for (const kind of ['grpc-js', 'the C core'] as const) {
  describe(`xDS before a gRPC client without a proxy: ${kind}`, function () {
    this.timeout(150_000);
    let world: XdsWorld;
    let servers: GrpcCells;
    let client: GrpcClient;
    let cells: Record<string, Instance[]>;
    const split = (a: number): Resource[] =>
      shop(cells, a, { protocol: 'grpc', grpc: { proxyless: true }, listener: { port: 10080 } });
    const shareOfA = async (calls: number): Promise<number> => {
      const { answered, failed } = await client.call(calls);
      expect(failed).to.deep.equal([]);
      const ofA = Object.entries(answered).filter(([name]) => name.startsWith('shop-a-'));
      return ofA.reduce((sum, [, n]) => sum + n, 0) / calls;
    };

    before(async function () {
      const core = kind === 'the C core' ? grpcioPackages() : { packages: '' };
      if ('problem' in core) {
        this.test!.parent!.title += ` (skipped: ${core.problem})`;
        return this.skip();
      }
      servers = new GrpcCells();
      cells = { 'shop-a': await servers.start('shop-a', 2), 'shop-b': await servers.start('shop-b', 2) };
      world = await XdsWorld.start();
      world.publish(...split(8000));
      const target = 'xds:///shop.grpc';
      client =
        kind === 'grpc-js'
          ? GrpcClient.grpcJs(target, world.port)
          : GrpcClient.cCore(core.packages, target, world.port);
    });
    after(() => {
      client?.stop();
      world?.stop();
      servers?.stop();
    });

    it('SOTW-3 finds its service by names alone, and calls cells by their shares', async () => {
      // Each call picks at random: 6.6 % are five standard deviations of 1000 calls.
      expect(await shareOfA(1000)).to.be.closeTo(0.8, 0.066);
      expect(world.xds.counts.nacks).to.equal(0);
    });

    it('RES-6 follows weight steps in the midst of calls, without a failed one', async () => {
      const calling = client.call(600);
      for (let step = 1; step <= 10; step += 1) {
        const { acked, nacked } = await world.publishAndWait(10_000, ...split(8000 - step * 600));
        expect({ acked, nacked }).to.deep.equal({ acked: [kind === 'grpc-js' ? 'grpc-js' : 'c-core'], nacked: [] });
      }
      expect((await calling).failed).to.deep.equal([]);
      expect(await shareOfA(1000)).to.be.closeTo(0.2, 0.066);
    });

    it('NACK-3 refuses a bad assignment by name, keeps the last good one, and takes the next', async () => {
      // A gap in the priorities, which Envoy would take without a word.
      const gap = split(2000).map((resource) => {
        if (resource.type !== 'endpoints' || resource.name !== 'shop') return resource;
        const [first] = withPriority(resource.message, 1).endpoints as EnvoyMessage[];
        return { ...resource, message: { ...resource.message, endpoints: [first] } };
      });
      const { nacked } = await world.publishAndWait(10_000, ...gap);
      expect(nacked.map(({ type, resource }) => `${type} ${resource}`)).to.deep.equal(['endpoints shop']);
      expect((await client.call(100)).failed).to.deep.equal([]);
      const { acked } = await world.publishAndWait(10_000, ...split(5000));
      expect(acked).to.have.length(1);
      expect(await shareOfA(700)).to.be.closeTo(0.5, 0.1);
    });

    it('RES-5, SOTW-11 calls on while the control plane is away, and follows it when it is back', async () => {
      const { port: xdsPort } = world;
      // A client asks for its configuration with its first call, which may be this one.
      expect((await client.call(1)).failed).to.deep.equal([]);
      world.stop();
      expect((await client.call(100)).failed).to.deep.equal([]);
      world = await XdsWorld.start({}, xdsPort);
      world.publish(...split(9000));
      await waitUntil(async () => (await shareOfA(100)) > 0.75, {
        withinMs: 60_000,
        what: 'the new split is followed',
      });
      expect(world.xds.counts.nacks).to.equal(0);
    });
  });
}
