/** Documents are read strictly: what is wrong is named with file, line, document, path and reason. */
import { expect } from 'chai';
import { parseDocuments } from '../../blueprints/apply';
import { crossCheck, type Known } from '../../blueprints/cross-checks';
import { differingPaths } from '../../blueprints/paths';
import { blueprintSchema } from '../../blueprints/schema';
import { blueprintDocument, cellDocument, serviceDocument, shopDocuments } from '../support/documents';
import { cellRecord } from '../support/memory-traffic-store';

const service = `kind: Service
name: shop
listener: { port: 10080 }
slo: { latencyMs: 250 }
safeSplit:
  shop-a: 10000
`;

/** The lines of the refusal; fails if there is none. */
function refusalOf(text: string): string[] {
  try {
    parseDocuments(text, 'shop.yaml');
  } catch (error) {
    expect((error as Error).name).to.equal('RefusedError');
    return (error as Error).message.split('\n');
  }
  throw new Error('the text was accepted');
}

const nothingKnown = { services: [], cells: [], blueprints: [] };
const reasons = (documents: Parameters<typeof crossCheck>[0], known: Known = nothingKnown) =>
  crossCheck(documents, known).map(({ document, path, reason }) => `${document} ${path.join('.')}: ${reason}`);

describe('Documents', () => {
  it('are read from one file, with every default in place, and only observe unless told otherwise', () => {
    const [first, second] = parseDocuments(
      `---\n${service}---\nkind: Cell\nname: shop-a\nservice: shop\nrole: primary\nblueprint: shop\n---\n`,
      'shop.yaml',
    );
    expect(first).to.deep.include({ kind: 'Service', name: 'shop' });
    expect(first?.kind === 'Service' && first.policy.autonomy).to.equal('observe');
    expect(second).to.deep.include({ kind: 'Cell', zone: 'local', instances: [] });
  });

  it('are refused with file, line, document, path and reason, all of them at once', () => {
    const text = `${service}polcy: {}
policy:
  canaryBp: 20000
  prepare: { enter: 0.2, exit: 0.3, persistS: 1 }
---
kind: Cell
name: Shop A
service: shop
role: tertiary
blueprint: shop
`;
    const lines = refusalOf(text);
    expect(lines).to.have.length(5);
    expect(lines).to.include('shop.yaml:7: document 1 (Service shop): polcy: is not a known key');
    expect(lines.find((line) => line.includes('canaryBp'))).to.match(
      /^shop\.yaml:9: document 1 \(Service shop\): policy\.canaryBp: Too big/,
    );
    expect(lines).to.include('shop.yaml:10: document 1 (Service shop): policy.prepare.exit: exit must be below enter');
    expect(lines.find((line) => line.includes('document 2') && line.includes(': name: '))).to.match(/^shop\.yaml:13: /);
    expect(lines.find((line) => line.includes(': role: '))).to.match(/^shop\.yaml:15: .*primary/);
  });

  it('are refused when they are not YAML, name a key twice, or hold nothing', () => {
    expect(refusalOf('kind: [Service')[0]).to.match(/^shop\.yaml:1: document 1: not YAML: /);
    expect(refusalOf('kind: Cell\nkind: Cell\n')[0]).to.match(/^shop\.yaml:2: document 1: not YAML: .*unique/);
    expect(refusalOf('')).to.deep.equal(['shop.yaml: holds no documents; expected Service, Cell, Blueprint']);
    expect(refusalOf('just words')[0]).to.match(/^shop\.yaml:1: document 1: \(document\): .*expected/i);
  });

  it('are refused when their kind is unknown or missing', () => {
    expect(refusalOf('kind: Pod\nname: x\n')).to.deep.equal([
      'shop.yaml:1: document 1 (Pod x): kind: must be one of Service, Cell, Blueprint',
    ]);
    expect(refusalOf('name: x\n')[0]).to.contain('kind: must be one of Service, Cell, Blueprint');
  });

  it('are refused when their shares do not add up', () => {
    expect(refusalOf(service.replace('10000', '9000'))).to.deep.equal([
      'shop.yaml:5: document 1 (Service shop): safeSplit: shares must add up to 10000',
    ]);
  });

  it('fit together', () => {
    expect(reasons(shopDocuments())).to.deep.equal([]);
  });

  it('do not fit when they name what is nowhere', () => {
    expect(reasons([serviceDocument(), cellDocument('shop-a', { service: 'cart' })])).to.deep.equal([
      '0 safeSplit.shop-a: cell shop-a belongs to service cart, not to shop',
      '0 safeSplit.shop-b: there is no cell shop-b, neither here nor in the store',
      '1 service: there is no service cart, neither here nor in the store',
      '1 blueprint: there is no blueprint shop, neither here nor in the store',
    ]);
  });

  it('do not fit when a name, a listener or an address is taken', () => {
    const instances = [{ name: 'i1', address: '127.0.0.1', port: 20100 }];
    const documents = [
      serviceDocument(),
      cellDocument('shop-a', { instances }),
      cellDocument('shop-b', { instances }),
      blueprintDocument(),
      blueprintDocument(),
      serviceDocument({ name: 'cart', safeSplit: { 'cart-a': 10_000 } }),
      cellDocument('cart-a', { service: 'cart' }),
    ];
    expect(reasons(documents)).to.deep.equal([
      '2 instances.0: 127.0.0.1:20100 already belongs to cell shop-a',
      '4 name: Blueprint shop is already document 4',
      "5 listener: 127.0.0.1:10080 is already service shop's",
    ]);
  });

  it('do not fit when traffic would move before anything is prepared for it', () => {
    const policy = { prepare: { enter: 0.9, exit: 0.1, persistS: 1 }, shift: { enter: 0.6, exit: 0.2, persistS: 1 } };
    const [first, ...others] = reasons([serviceDocument({ policy }), ...shopDocuments().slice(1)]);
    expect(first).to.match(/^0 policy\.prepare\.enter: must not be above shift\.enter/);
    expect(others).to.deep.equal([]);
  });

  it('name a provider that there can be, and the image that it needs', () => {
    const parse = (provider: string) => blueprintSchema.safeParse({ ...blueprintDocument(), provider });
    for (const provider of ['process', 'docker', 'exec:aws']) expect(parse(provider).success, provider).to.equal(true);
    for (const provider of ['', 'kubernetes', 'exec', 'exec:', 'exec:../x', 'exec:a b']) {
      const issue = parse(provider).error?.issues[0];
      expect([issue?.path, issue?.message]).to.deep.equal([['provider'], 'must be process, docker or exec:NAME']);
    }
    expect(reasons([blueprintDocument({ provider: 'docker' })])).to.deep.equal([
      '0 image.os: provider docker needs an image, such as shop:1.4',
    ]);
  });

  it('do not promise what the provider cannot bring about', () => {
    const blueprint = blueprintDocument({
      image: { command: ['server'] },
      security: { secrets: [{ name: 'db', from: 'vault:shop/db' }] },
    });
    expect(reasons([blueprint])).to.deep.equal([
      '0 image.command: neither the command nor the environment names {port}, so an instance cannot know where to listen',
      '0 security.secrets: provider process cannot bring this about: leave it out',
    ]);
  });

  it('give cells an identity only as the proxies of their service expect it', () => {
    const identity = { kind: 'uri', value: 'spiffe://shop/cell/{cell}' };
    const certified = (change: Record<string, unknown> = {}) =>
      blueprintDocument({ security: { identity }, ...change });
    const shop = (tls?: Record<string, unknown>) => [
      serviceDocument({ safeSplit: { 'shop-a': 10_000 }, ...(tls && { tls }) }),
      cellDocument('shop-a'),
      certified(),
    ];
    const tls = { trustedCa: { sds: 'cells' }, certificate: { sds: 'edge' }, subjectAltName: identity };
    expect(reasons(shop(tls))).to.deep.equal([]);
    expect(reasons(shop())).to.deep.equal([
      '2 security.identity: the proxies of service shop speak to its cells without TLS: give it tls with this subjectAltName',
    ]);
    const another = { kind: 'dns', value: '{cell}.shop' };
    expect(reasons(shop({ ...tls, certificate: undefined, subjectAltName: another }))).to.deep.equal([
      '2 security.identity: the proxies of service shop take only dns:{cell}.shop for a cell (tls.subjectAltName), not uri:spiffe://shop/cell/{cell}',
      '2 security.identity: the proxies of service shop show no certificate of their own (tls.certificate), and the cells ask for one',
    ]);
    const nameless = blueprintSchema.safeParse({
      ...certified(),
      security: { identity: { kind: 'dns', value: 'shop' } },
    });
    expect(nameless.error?.issues[0]?.message).to.equal("must hold {cell}, which stands for the cell's name");
  });

  it('wait for copies of requests only where the service mirrors some', () => {
    const shop = (percent: number, ...warmUp: object[]) => [
      serviceDocument({ safeSplit: { 'shop-a': 10_000 }, mirror: { percent } }),
      cellDocument('shop-a'),
      blueprintDocument({ warmUp }),
    ];
    expect(reasons(shop(0, { kind: 'connections' }))).to.deep.equal([]);
    expect(reasons(shop(5, { kind: 'mirror' }))).to.deep.equal([]);
    expect(reasons(shop(0, { kind: 'connections' }, { kind: 'mirror' }))).to.deep.equal([
      '2 warmUp.1: waits for copies of requests, and service shop mirrors none: give it mirror.percent above 0, or leave the step out',
    ]);
  });

  it('keep a service mirroring while a cell that stays as it is waits for copies in its warm-up', () => {
    const shop = (percent: number) => serviceDocument({ safeSplit: { 'shop-a': 10_000 }, mirror: { percent } });
    const plan = (version: number, ...warmUp: object[]) => ({
      ...{ name: 'shop', version },
      spec: blueprintDocument({ warmUp }),
    });
    const stored = plan(1, { kind: 'connections' }, { kind: 'mirror' });
    const known: Known = {
      services: [{ name: 'shop', spec: shop(5) }],
      cells: [cellRecord('shop-a', []), cellRecord('shop-a-understudy-1', [], { role: 'synthetic' })],
      blueprints: [stored],
    };
    const refusal = [
      '0 mirror.percent: is 0, and warmUp.1 of version 1 of blueprint shop, which shop-a has, waits for copies of requests: leave it above 0, or apply shop-a with a blueprint without that step',
    ];
    expect(reasons([shop(1)], known)).to.deep.equal([]);
    expect(reasons([shop(0)], known)).to.deep.equal(refusal);
    expect(reasons([shop(0), cellDocument('shop-a')], known), 'the stored plan is the newest').to.deep.equal(refusal);
    // A new version counts for the cells that are applied with it.
    const without = blueprintDocument({ warmUp: [{ kind: 'connections' }] });
    expect(reasons([shop(0), without], known)).to.deep.equal(refusal);
    expect(reasons([shop(0), without, cellDocument('shop-a')], known)).to.deep.equal([]);
    const newer = { ...known, blueprints: [plan(2, { kind: 'connections' }), stored] };
    expect(reasons([shop(0)], newer)).to.deep.equal(refusal);
    expect(reasons([shop(0), cellDocument('shop-a')], newer)).to.deep.equal([]);
  });

  it('are compared to the deepest path that differs', () => {
    const before = { a: 1, list: [{ x: 1 }, { x: 2 }], gone: true, same: { y: 1 } };
    const after = { a: 2, list: [{ x: 1 }, { x: 3 }, { x: 4 }], same: { y: 1 } };
    expect(differingPaths(before, after)).to.deep.equal(['a', 'list[1].x', 'list[2]', 'gone']);
  });
});
