/** Ports for instances: what there is to say when there are none left. */
import { expect } from 'chai';
import { chooseFreePort } from '../../cells/ports';

describe('A free port', () => {
  it('is none of those that are taken', async () => {
    const even = new Set(Array.from({ length: 17_000 }, (_, i) => 15_000 + i).filter((port) => port % 2 === 0));
    expect((await chooseFreePort('127.0.0.1', even)) % 2).to.equal(1);
  });

  it('is refused with a reason when all are taken', async () => {
    const all = new Set(Array.from({ length: 17_000 }, (_, i) => 15_000 + i));
    const failure = await chooseFreePort('127.0.0.1', all).then(
      () => undefined,
      (error: Error) => error.message,
    );
    expect(failure).to.contain('There is no free port on 127.0.0.1 between 15000 and 31999');
  });
});
