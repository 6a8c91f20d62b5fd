import { expect } from 'chai';
import { sentence } from '../../prediction/explain';

describe('The sentence of a driver', () => {
  const nothing = { limit: NaN, stepsToLimit: NaN, z: 0 };

  it('says how far a resource is and how soon it is used up', () => {
    const heap = { value: 91, recent: 91, slope: 1.2, baseline: 40, limit: 100, stepsToLimit: 7, z: 3 };
    expect(sentence('heap.used_bytes', heap, 1000)).to.equal('heap 91 % of limit, rising 1.2 % a second, limit in 7 s');
  });

  it('gives no rate where the usual value is 0: any would be without measure', () => {
    const waiting = { ...nothing, value: 3, recent: 3, slope: 0.5, baseline: 0 };
    expect(sentence('http.in_flight', waiting, 1000)).to.equal('requests in flight 3, usually 0');
  });
});
