/** What differs between two blueprints is told by what it means for a cell. */
import { expect } from 'chai';
import { diffBlueprints, diffText } from '../../blueprints/blueprint-diff';
import { blueprintDocument } from '../support/documents';

const base = {
  security: { user: 'shop', capabilities: [], noNewPrivileges: true },
  resources: { memoryLimitMib: 64, processes: 100 },
};
const changes = (change: object, from: object = base) =>
  diffBlueprints(blueprintDocument({ ...from }), blueprintDocument({ ...from, ...change })).map(
    ({ path, matters, change: word }) => `${matters} ${word}: ${path}`,
  );

describe('A difference between blueprints', () => {
  it('is weaker protection, whoever it looks at', () => {
    expect(changes({ security: {} })).to.have.members([
      'protection weaker: security.user',
      'protection weaker: security.capabilities',
      'protection weaker: security.noNewPrivileges',
    ]);
    expect(changes({ network: { address: '0.0.0.0', egress: ['db:5432'] } })).to.deep.equal([
      'protection weaker: network.address',
      'protection weaker: network.egress',
    ]);
    expect(changes({ resources: { memoryLimitMib: 64 } })).to.deep.equal(['protection weaker: resources.processes']);
  });

  it('of bounds of files is weaker where more can be written or seen, whatever else is stronger', () => {
    const files = (writable: string[], hidden: string[]) => ({ security: { files: { writable, hidden } } });
    const from = files(['/a'], ['/root']);
    for (const to of [files(['/a', '/b'], ['/root', '/home']), files([], []), { security: {} }])
      expect(changes(to, from)).to.deep.equal(['protection weaker: security.files']);
    for (const to of [files([], ['/root']), files(['/a'], ['/root', '/home'])])
      expect(changes(to, from)).to.deep.equal(['protection stronger: security.files']);
  });

  it('turned round is stronger protection', () => {
    expect(changes(base, {})).to.have.members([
      'protection stronger: security.user',
      'protection stronger: security.capabilities',
      'protection stronger: security.noNewPrivileges',
      'protection stronger: resources.processes',
    ]);
  });

  it('is less or more capacity', () => {
    expect(
      changes({ capacity: { requestsPerSecond: 50 }, resources: { memoryLimitMib: 128, processes: 100 } }),
    ).to.have.members(['capacity less: capacity.requestsPerSecond', 'capacity more: resources.memoryLimitMib']);
  });

  it('is none between two of the same content', () => {
    const [a, b] = [blueprintDocument(), blueprintDocument({ name: 'other' })];
    expect(diffText(diffBlueprints(a, b))).to.equal('No difference.');
  });

  it('is read with what matters most first', () => {
    const to = blueprintDocument({ image: { command: ['x', '{port}'] }, security: { user: 'root' } });
    expect(diffText(diffBlueprints(blueprintDocument({ security: { user: 'shop' } }), to))).to.match(
      /^Protection becomes weaker:\n {2}security\.user: shop becomes root\nSomething else runs:\n {2}image\.command: /,
    );
  });
});
