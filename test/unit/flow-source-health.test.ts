/** What makes a source dead: its own silence, and nobody else's. */
import { expect } from 'chai';
import { Answered, SourceHealth } from '../../activities/instance-health';

const two = [{ name: 'a-1' }, { name: 'a-2' }];

function rounds(health: SourceHealth, ...healthy: boolean[][]): SourceHealth {
  for (const round of healthy) health.round(two, round);
  return health;
}

describe("A source's health", () => {
  it('is dead only when every instance has failed repeatedly', () => {
    const health = rounds(new SourceHealth('alive'), [false, false], [false, false]);
    expect(health.state()).to.equal('alive');
    expect(rounds(health, [false, false]).state()).to.equal('dead');
  });

  it('is failing when some instances have failed repeatedly', () => {
    expect(rounds(new SourceHealth('alive'), [true, false], [true, false], [true, false]).state()).to.equal('failing');
  });

  it('is not believed dead while load reports show that it answers callers', () => {
    const answered = new Answered();
    answered.note({ requests: 100, errors: 0 }, 1000);
    expect(answered.contradicts('dead', 1000), 'one report is no trend').to.equal(false);
    answered.note({ requests: 150, errors: 10 }, 2000);
    expect(answered.contradicts('dead', 2500)).to.equal(true);
    expect(answered.contradicts('alive', 2500)).to.equal(false);
  });

  it('is believed dead soon after the answers have ended, or when only errors are counted', () => {
    const answered = new Answered();
    answered.note({ requests: 100, errors: 0 }, 1000);
    answered.note({ requests: 150, errors: 0 }, 2000);
    answered.note({ requests: 190, errors: 40 }, 3000);
    expect(answered.contradicts('dead', 3600)).to.equal(false);
  });
});
