/**
 * What Envoy is told about a service, against golden files that are reviewed as a diff. Regenerate them with
 * `UPDATE_GOLDEN=1 npx mocha dist/test/unit/envoy-resources.test.js`.
 */
import { expect } from 'chai';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse, stringify } from 'yaml';
import type { CellShare } from '../../blueprints/records';
import { encodeStrictly } from '../../envoy/protos';
import { messageName, serviceOf } from '../../envoy/resources/resource';
import { serviceResources } from '../../envoy/resources/service';
import { resourceProblems } from '../../envoy/validate';
import { assignmentProblems } from '../../envoy/validate-assignment';
import { packageRoot } from '../../package-root';
import { blueprintDocument, serviceDocument } from '../support/documents';
import { cellRecord } from '../support/memory-traffic-store';

const instances = (cell: string, port: number) =>
  [1, 2].map((n) => ({ name: `${cell}-${n}`, address: '127.0.0.1', port: port + n }));
const cells = [
  cellRecord('shop-a', instances('shop-a', 20100)),
  cellRecord('shop-b', instances('shop-b', 20200)),
  cellRecord('shop-a-understudy-1', instances('shop-a-understudy-1', 20300), { role: 'synthetic', state: 'armed' }),
];
const resourcesOf = (split: CellShare[]) =>
  serviceResources({
    service: { name: 'shop', spec: serviceDocument() },
    cells,
    traffic: { service: 'shop', epoch: 1, split },
    blueprints: [{ name: 'shop', version: 1, spec: blueprintDocument() }],
  });
const split = (...shares: [string, number, number][]): CellShare[] =>
  shares.map(([cell, shareBp, coverInstances]) => ({ cell, shareBp, coverInstances }));

const phases: Record<string, CellShare[]> = {
  safe: split(['shop-a', 5000, 0], ['shop-b', 5000, 0]),
  armed: split(['shop-a', 5000, 0], ['shop-b', 5000, 0], ['shop-a-understudy-1', 0, 2]),
  canary: split(['shop-a', 4500, 0], ['shop-b', 5000, 0], ['shop-a-understudy-1', 500, 1]),
  'failed-over': split(['shop-a', 0, 0], ['shop-b', 5000, 0], ['shop-a-understudy-1', 5000, 0]),
};

describe('Resources of a service', () => {
  for (const [phase, shares] of Object.entries(phases)) {
    it(`when its split is ${phase}: as in test/golden/envoy/${phase}.yaml`, () => {
      const resources = resourcesOf(shares);
      expect(resourceProblems(resources)).to.deep.equal([]);
      for (const { type, message } of resources) encodeStrictly(messageName(type), message);
      const relevant =
        phase === 'safe' ? resources : resources.filter((r) => r.type === 'endpoints' && r.name === 'shop');
      const got = relevant.map(({ type, name, message }) => ({ type, name, message }));
      const file = join(packageRoot, 'test', 'golden', 'envoy', `${phase}.yaml`);
      if (process.env.UPDATE_GOLDEN) writeFileSync(file, stringify(got, { aliasDuplicateObjects: false }));
      expect(got).to.deep.equal(parse(readFileSync(file, 'utf8')));
    });
  }

  it('are the same but for one assignment whatever the split is: a step warms no cluster anew', () => {
    const others = (shares: CellShare[]) =>
      resourcesOf(shares).filter((r) => r.type !== 'endpoints' || r.name !== 'shop');
    for (const shares of Object.values(phases)) expect(others(shares)).to.deep.equal(others(phases.safe!));
  });

  it('keep their cluster when a synthetic cell comes', () => {
    const declaredOnly = serviceResources({
      service: { name: 'shop', spec: serviceDocument() },
      cells: cells.slice(0, 2),
      traffic: { service: 'shop', epoch: 1, split: phases.safe! },
      blueprints: [{ name: 'shop', version: 1, spec: blueprintDocument() }],
    });
    expect(declaredOnly.find((r) => r.name === 'shop' && r.type === 'cluster')).to.deep.equal(
      resourcesOf(phases.armed!).find((r) => r.name === 'shop' && r.type === 'cluster'),
    );
  });
});

describe('A gRPC service', () => {
  const resources = (grpc: object) =>
    serviceResources({
      service: { name: 'shop', spec: serviceDocument({ protocol: 'grpc', grpc }) },
      cells,
      traffic: { service: 'shop', epoch: 1, split: phases.safe! },
      blueprints: [],
    });

  it('is served to clients without a proxy under a name of its own, if its document says so', () => {
    const listeners = (grpc: object) => resources(grpc).filter(({ type }) => type === 'listener');
    expect(listeners({}).map(({ name }) => name)).to.deep.equal(['shop']);
    const [, proxyless] = listeners({ proxyless: true });
    expect(proxyless).to.deep.include({ name: 'shop.grpc', references: [{ type: 'route', name: 'shop' }] });
    expect(proxyless!.message).to.have.nested.property('api_listener.api_listener.rds.route_config_name', 'shop');
    expect(serviceOf('shop.grpc')).to.equal('shop');
    expect(resourceProblems(resources({ proxyless: true }))).to.deep.equal([]);
    for (const { type, message } of resources({ proxyless: true })) encodeStrictly(messageName(type), message);
  });
});

describe('Strict encoding', () => {
  const cluster = 'envoy.config.cluster.v3.Cluster';
  const refusals: [string, object, string][] = [
    [
      'a misspelt field',
      { common_lb_config: { locality_wieghted_lb_config: {} } },
      'common_lb_config.locality_wieghted_lb_config',
    ],
    ['a value that an enum does not have', { type: 'EDSS' }, 'Cluster.type'],
    ['a bare number where a wrapper is needed', { health_checks: [{ healthy_threshold: 1 }] }, 'healthy_threshold'],
    [
      'a misspelt field within an Any',
      {
        typed_extension_protocol_options: {
          x: { '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions', explicit: {} },
        },
      },
      'typed_extension_protocol_options.x.explicit',
    ],
  ];
  for (const [what, message, path] of refusals) {
    it(`refuses ${what} with its path`, () => {
      expect(() => encodeStrictly(cluster, message as Record<string, unknown>)).to.throw(path);
    });
  }
});

describe('Validator', () => {
  const locality = (cell: string, change: object = {}, ports = [1]) => ({
    locality: { region: 'r', zone: 'z', sub_zone: cell },
    priority: 0,
    load_balancing_weight: { value: 5000 },
    lb_endpoints: ports.map((port_value) => ({
      endpoint: { address: { socket_address: { address: '127.0.0.1', port_value } } },
    })),
    ...change,
  });
  const hostname = { endpoint: { address: { socket_address: { address: 'localhost', port_value: 9 } } } };
  const cases: [string, object[], string][] = [
    [
      'a cell twice at one priority',
      [locality('a'), locality('a', {}, [2])],
      'endpoints[1].locality: a is twice at priority 0',
    ],
    [
      'an address in two places',
      [locality('a'), locality('b', { priority: 1 })],
      '127.0.0.1:1 is already in a at priority 0',
    ],
    ['a gap between priorities', [locality('a'), locality('b', { priority: 2 }, [2])], 'nothing at priority 1'],
    [
      'weights that overflow',
      [locality('a', { load_balancing_weight: { value: 0xffffffff } }), locality('b', {}, [2])],
      'above 2^32-1',
    ],
    ['a weight of 0', [locality('a', { load_balancing_weight: { value: 0 } })], 'endpoints[0].load_balancing_weight'],
    ['a missing weight', [locality('a', { load_balancing_weight: undefined })], 'endpoints[0].load_balancing_weight'],
    ['a name instead of an address', [locality('a', { lb_endpoints: [hostname] })], 'localhost is not an IP address'],
    ['a locality that names no cell', [locality('', {})], 'endpoints[0].locality: names no cell'],
    ['an assignment without instances', [], 'no instances at all'],
  ];
  for (const [what, endpoints, words] of cases) {
    it(`RES-7 refuses ${what}, which Envoy would take or misread`, () => {
      expect(assignmentProblems('shop', { endpoints }).join('\n')).to.contain(words);
    });
  }

  it('DELTA-10 refuses two clusters on one assignment, two listeners on one address, and names of what is not there', () => {
    const [cluster, , , , , , , , listener] = resourcesOf(phases.safe!);
    const problems = resourceProblems([
      cluster!,
      { ...cluster!, name: 'other' },
      listener!,
      { ...listener!, name: 'other' },
    ]);
    expect(problems.join('\n'))
      .to.contain('assignment shop is already shop')
      .and.to.contain('address 127.0.0.1:10080 is already shop')
      .and.to.contain('names route shop, which is not published');
  });
});
