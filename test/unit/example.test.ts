/** The examples a new user starts from. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { parseDocuments } from '../../blueprints/apply';
import { crossCheck } from '../../blueprints/cross-checks';
import { packageRoot } from '../../package-root';

const examples = [
  ['of the documentation', 'docs/example.yaml'],
  ['of a service in Python', 'examples/shop-python/shop.yaml'],
] as const;

for (const [what, path] of examples)
  describe(`The example ${what}`, () => {
    it('is accepted, and observes only', () => {
      const file = join(packageRoot, path);
      const documents = parseDocuments(readFileSync(file, 'utf8'), file);
      expect(documents.map((d) => `${d.kind} ${d.name}`)).to.deep.equal([
        'Service shop',
        'Cell shop-a',
        'Cell shop-b',
        'Blueprint shop',
      ]);
      expect(crossCheck(documents, { services: [], cells: [], blueprints: [] })).to.deep.equal([]);
      expect(documents[0]).to.have.nested.property('policy.autonomy', 'observe');
    });
  });
