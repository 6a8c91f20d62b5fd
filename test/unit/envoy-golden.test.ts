/** What each setting of a service becomes at its proxies: golden pairs, rewritten by `npm run golden:envoy`. */
import { expect } from 'chai';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse, stringify } from 'yaml';
import type { CellRecord, CellShare } from '../../blueprints/records';
import { serviceResources } from '../../envoy/resources/service';
import { resourceProblems } from '../../envoy/validate';
import { packageRoot } from '../../package-root';
import { blueprintDocument, serviceDocument } from '../support/documents';
import { cellRecord } from '../support/memory-traffic-store';

interface Input {
  service: Record<string, unknown>;
  cells: Record<string, Partial<Omit<CellRecord, 'instances'>> & { instances: string[] }>;
  split: Record<string, Partial<CellShare>>;
}

const golden = join(packageRoot, 'test', 'golden', 'envoy');
const names = readdirSync(golden).flatMap((file) => /^(.*)\.in\.yaml$/.exec(file)?.[1] ?? []);

function resourcesOf({ service, cells, split }: Input) {
  return serviceResources({
    service: { name: 'shop', spec: serviceDocument(service) },
    cells: Object.entries(cells).map(([name, { instances, ...rest }]) => {
      const places = instances.map((at, i) => {
        const [address, port] = at.split(':');
        return { name: `${name}-${i + 1}`, address: address!, port: Number(port) };
      });
      return cellRecord(name, places, rest);
    }),
    traffic: {
      service: 'shop',
      epoch: 1,
      split: Object.entries(split).map(([cell, share]) => ({ cell, shareBp: 0, coverInstances: 0, ...share })),
    },
    blueprints: [{ name: 'shop', version: 1, spec: blueprintDocument() }],
  });
}

describe('Settings of a service', () => {
  it('have golden files', () => expect(names).to.include.members(['grpc', 'tls-files', 'weighted-clusters']));

  for (const name of names)
    it(`${name} becomes what test/golden/envoy/${name}.out.yaml says`, () => {
      const resources = resourcesOf(parse(readFileSync(join(golden, `${name}.in.yaml`), 'utf8')) as Input);
      expect(resourceProblems(resources)).to.deep.equal([]);
      const got = resources.map(({ type, name: of, message }) => ({ type, name: of, message }));
      const file = join(golden, `${name}.out.yaml`);
      if (process.env.UPDATE_GOLDEN) writeFileSync(file, stringify(got, { aliasDuplicateObjects: false }));
      expect(existsSync(file), `${file} is missing: npm run golden:envoy`).to.equal(true);
      expect(got).to.deep.equal(parse(readFileSync(file, 'utf8')));
    });
});
