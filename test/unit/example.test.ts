/** The example a new user starts from. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { parseDocuments } from '../../blueprints/apply';
import { packageRoot } from '../../package-root';

describe('The example of the documentation', () => {
  it('is accepted, and observes only', () => {
    const file = join(packageRoot, 'docs', 'example.yaml');
    const documents = parseDocuments(readFileSync(file, 'utf8'), file);
    expect(documents.map((d) => `${d.kind} ${d.name}`)).to.deep.equal([
      'Service shop',
      'Cell shop-a',
      'Cell shop-b',
      'Blueprint shop',
    ]);
    expect(documents[0]).to.have.nested.property('policy.autonomy', 'observe');
  });
});
