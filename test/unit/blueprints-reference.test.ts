/** The published schemas and the reference page say what the code says. */
import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { publishedFiles } from '../../blueprints/reference';
import { packageRoot } from '../../package-root';

describe('Published configuration reference', () => {
  for (const [path, content] of Object.entries(publishedFiles()))
    it(`${path} is up to date (npm run docs:configuration)`, () => {
      expect(readFileSync(join(packageRoot, path), 'utf8')).to.equal(content);
    });

  it('names every key of a policy with its default', () => {
    const page = publishedFiles()['docs/configuration.md'];
    expect(page).to.contain('| `policy.autonomy` | `observe`, `advise`, `approve`, `act` | `observe` |');
    expect(page).to.contain('| `warmUp[probe].maxLatencyRatio` | number, from 1 | `2` |');
    expect(page).not.to.contain(packageRoot);
  });
});
