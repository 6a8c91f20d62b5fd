/** Whatever a service is, what is built for it passes the validator; and the validator sees every way of spoiling it. */
import { expect } from 'chai';
import fc from 'fast-check';
import { crossCheck } from '../../blueprints/cross-checks';
import type { EnvoyMessage } from '../../envoy/protos';
import type { Resource } from '../../envoy/resources/resource';
import { serviceResources, type ServiceFacts } from '../../envoy/resources/service';
import { resourceProblems } from '../../envoy/validate';
import { blueprintDocument, cellDocument, serviceDocument } from '../support/documents';
import { cellRecord } from '../support/memory-traffic-store';

interface Locality {
  locality: { sub_zone: string };
  priority: number;
  load_balancing_weight?: { value: number };
  lb_endpoints: { endpoint: { address: { socket_address: { address: string; port_value: number } } } }[];
}

const cellOf = fc.record({
  instances: fc.integer({ min: 0, max: 4 }),
  weight: fc.integer({ min: 0, max: 10_000 }),
  cover: fc.nat(4),
  synthetic: fc.boolean(),
});

const settings = fc.record({
  protocol: fc.constantFrom('http/1.1', 'http/2', 'grpc'),
  distribution: fc.constantFrom('locality-weights', 'weighted-clusters'),
  latency: fc.record({ samplePercent: fc.constantFrom(0, 1, 100) }),
  mirror: fc.record({ percent: fc.constantFrom(0, 50), paths: fc.constantFrom([], ['/read/']) }),
  affinity: fc.constantFrom(undefined, { cookie: 'session' }),
  tls: fc.constantFrom(undefined, {
    trustedCa: { file: '/ca.pem' },
    subjectAltName: { kind: 'dns', value: '{cell}.test' },
  }),
});

/** Services whose split can be carried out: some cell takes a share and has instances for it. */
const facts: fc.Arbitrary<ServiceFacts> = fc
  .tuple(settings, fc.array(cellOf, { minLength: 1, maxLength: 6 }))
  .map(([change, drawn]) => {
    const cells = drawn.map(({ instances, synthetic }, c) =>
      cellRecord(
        `cell-${c}`,
        Array.from({ length: instances }, (_, i) => ({ name: `cell-${c}-${i}`, address: `10.0.${c}.${i}`, port: 80 })),
        synthetic ? { role: 'synthetic', state: 'warming' } : {},
      ),
    );
    const total = drawn.reduce((sum, { weight }) => sum + weight, 0);
    let left = 10_000;
    const split = drawn.map(({ weight, cover, instances }, c) => {
      const shareBp = c === drawn.length - 1 ? left : Math.floor((10_000 * weight) / Math.max(1, total));
      left -= shareBp;
      const most = shareBp > 0 ? Math.max(0, instances - 1) : instances;
      return { cell: `cell-${c}`, shareBp, coverInstances: Math.min(cover, most) };
    });
    return {
      service: { name: 'shop', spec: serviceDocument(change) },
      cells,
      traffic: { service: 'shop', epoch: 1, split },
      blueprints: [{ name: 'shop', version: 1, spec: blueprintDocument() }],
    };
  })
  .filter(({ cells, traffic }) =>
    traffic.split.some(({ shareBp, cell }) => shareBp > 0 && cells.find((c) => c.name === cell)!.instances.length > 0),
  );

const localitiesOf = (resources: Resource[], name = 'shop'): Locality[] =>
  (resources.find((r) => r.type === 'endpoints' && r.name === name)?.message.endpoints ?? []) as Locality[];
const addressesOf = (localities: Locality[]): string[] =>
  localities.flatMap(({ lb_endpoints }) =>
    lb_endpoints.map(({ endpoint }) => JSON.stringify(endpoint.address.socket_address)),
  );

describe('Resources of any service', () => {
  it('pass the validator, share out 10,000 and name each instance once', () => {
    fc.assert(
      fc.property(facts, (given) => {
        const resources = serviceResources(given);
        expect(resourceProblems(resources)).to.deep.equal([]);
        const shares =
          given.service.spec.distribution === 'locality-weights'
            ? localitiesOf(resources).filter(({ priority }) => priority === 0)
            : weightedClusters(resources).map(({ weight }) => ({ load_balancing_weight: weight }));
        expect(shares.reduce((sum, s) => sum + (s.load_balancing_weight?.value ?? 0), 0)).to.equal(10_000);
        for (const { name } of resources.filter(({ type }) => type === 'endpoints')) {
          const addresses = addressesOf(localitiesOf(resources, name));
          expect(new Set(addresses).size).to.equal(addresses.length);
        }
      }),
      { numRuns: 200 },
    );
  });

  it('are refused when spoilt, with the path', () => {
    fc.assert(
      fc.property(facts, fc.constantFrom(...spoilers), fc.nat(), (given, [, spoil, path], at) => {
        const spec = { ...given.service.spec, distribution: 'locality-weights' as const };
        const resources = structuredClone(serviceResources({ ...given, service: { name: 'shop', spec } }));
        // Some need what a service does not have: a second cell, an instance.
        fc.pre(spoil(resources, at));
        expect(resourceProblems(resources).join('\n')).to.match(path);
      }),
      { numRuns: 400 },
    );
  });
});

function weightedClusters(resources: Resource[]): { weight: { value: number } }[] {
  const [host] = resources.find(({ type }) => type === 'route')!.message.virtual_hosts as { routes: EnvoyMessage[] }[];
  const { weighted_clusters } = host!.routes.at(-1)!.route as {
    weighted_clusters: { clusters: { weight: { value: number } }[] };
  };
  return weighted_clusters.clusters;
}

/** Ways to spoil, what they do (answering whether they could), and what the validator must say. */
const spoilers: [string, (resources: Resource[], at: number) => boolean, RegExp][] = [
  [
    'a locality twice',
    (resources) => {
      const localities = localitiesOf(resources);
      localities.push({ ...structuredClone(localities[0]!), lb_endpoints: [endpointAt('192.0.2.1')] });
      return true;
    },
    /endpoints\[\d+\]\.locality: cell-\d is twice/,
  ],
  [
    'an endpoint twice',
    (resources, at) => {
      const localities = localitiesOf(resources);
      const { lb_endpoints } = localities[at % localities.length]!;
      lb_endpoints.push(structuredClone(lb_endpoints[0]!));
      return true;
    },
    /lb_endpoints\[\d+\]: .* is already in/,
  ],
  [
    'a gap between priorities',
    (resources) => {
      const behind = localitiesOf(resources).filter(({ priority }) => priority === 1);
      for (const locality of behind) locality.priority = 2;
      return behind.length > 0;
    },
    /nothing at priority 1/,
  ],
  [
    'shares that do not add up',
    (resources) => {
      localitiesOf(resources).find((l) => l.load_balancing_weight)!.load_balancing_weight!.value += 1;
      return true;
    },
    /add up to 10001, not to 10000/,
  ],
  [
    'a name for an address',
    (resources) => {
      localitiesOf(resources)[0]!.lb_endpoints[0] = endpointAt('shop.internal');
      return true;
    },
    /endpoints\[0\]\.lb_endpoints\[0\]: shop\.internal is not an IP address/,
  ],
  [
    'one address in two spellings',
    (resources) => {
      localitiesOf(resources)[0]!.lb_endpoints.push(endpointAt('2001:db8::1'), endpointAt('2001:0db8:0:0::0:1'));
      return true;
    },
    /is already in/,
  ],
  [
    'no cell named',
    (resources) => {
      localitiesOf(resources)[0]!.locality.sub_zone = '';
      return true;
    },
    /endpoints\[0\]\.locality: names no cell/,
  ],
  [
    'an empty assignment',
    (resources) => {
      localitiesOf(resources).length = 0;
      return true;
    },
    /no instances at all/,
  ],
  [
    'weights that are ignored',
    (resources) => {
      delete (named(resources, 'cluster').message.common_lb_config as EnvoyMessage).locality_weighted_lb_config;
      return localitiesOf(resources).filter(({ priority }) => priority === 0).length > 1;
    },
    /common_lb_config\.locality_weighted_lb_config: is missing/,
  ],
  [
    'two clusters on one assignment',
    (resources) => {
      const { message, ...rest } = named(resources, 'cluster');
      resources.push({ ...rest, name: 'twin', message: { ...message, name: 'twin' } });
      return true;
    },
    /assignment shop is already shop's/,
  ],
  [
    'two listeners at one address',
    (resources) => {
      resources.push({ ...named(resources, 'listener'), name: 'twin' });
      return true;
    },
    /address 127\.0\.0\.1:10080 is already shop's/,
  ],
  [
    'a key that is not there, at any depth',
    (resources, at) => {
      const places: EnvoyMessage[] = [];
      collect(named(resources, (['cluster', 'listener', 'route'] as const)[at % 3]!).message, places);
      places[at % places.length]!.no_such_key = 1;
      return true;
    },
    /no_such_key: unknown field/,
  ],
  [
    'a text for a number',
    (resources) => {
      localitiesOf(resources)[0]!.lb_endpoints[0]!.endpoint.address.socket_address.port_value =
        'eighty' as unknown as number;
      return true;
    },
    /port_value: "eighty" would arrive as 0/,
  ],
];

function named(resources: Resource[], type: Resource['type']): Resource {
  return resources.find((r) => r.type === type && r.name === 'shop')!;
}

function endpointAt(address: string) {
  return { endpoint: { address: { socket_address: { address, port_value: 80 } } } };
}

/** Every message in a message; not maps, whose keys are free. */
function collect(value: unknown, into: EnvoyMessage[]): void {
  if (Array.isArray(value)) value.forEach((item) => collect(item, into));
  else if (typeof value === 'object' && value !== null) {
    into.push(value as EnvoyMessage);
    for (const [key, item] of Object.entries(value)) {
      if (key === 'typed_extension_protocol_options')
        Object.values(item as object).forEach((one: unknown) => collect(one, into));
      else if (key !== 'match' || !('transport_socket' in value)) collect(item, into);
    }
  }
}

describe('A service document', () => {
  const reasons = (change: Record<string, unknown>): string[] =>
    crossCheck([serviceDocument(change), cellDocument('shop-a'), cellDocument('shop-b'), blueprintDocument()], {
      services: [],
      cells: [],
      blueprints: [],
    }).map(({ path, reason }) => `${path.join('.')} ${reason}`);

  for (const [what, change, words] of [
    [
      'affinity among weighted clusters',
      { affinity: { cookie: 'a' }, distribution: 'weighted-clusters' },
      'affinity goes',
    ],
    ['clients without a proxy of what is no gRPC', { grpc: { proxyless: true } }, 'grpc.proxyless goes with'],
    ['methods of gRPC calls', { protocol: 'grpc', http: { repeatable: ['PUT'] } }, 'http.repeatable does not go'],
    ['a mirror of all gRPC calls', { protocol: 'grpc', mirror: { percent: 1 } }, 'mirror.paths is empty'],
  ] as const)
    it(`is refused for ${what}`, () => expect(reasons(change).join()).to.contain(words));

  it('is refused for an authority from two places', () => {
    const tls = { trustedCa: { file: '/a', sds: 'b' }, subjectAltName: { kind: 'dns', value: 'a' } };
    expect(() => serviceDocument({ tls })).to.throw('give either file or sds');
  });
});
