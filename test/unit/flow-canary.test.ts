import { expect } from 'chai';
import { Judge } from '../../activities/watch-failover';
import { measuresOf, referenceOf } from '../../workflows/canary';
import { judgeCanary } from '../../workflows/judge';
import { requestsForGood, sequentialVerdict, type SequentialTest } from '../../workflows/sequential-test';
import { policyOf } from '../support/failover-world';

const measures = measuresOf(policyOf(), false);
const well = { requests: 10_000, errors: 5 };
const sick = { requests: 10_000, errors: 800 };

/** A small generator with a seed, so that a failure can be repeated (mulberry32). */
function randomOf(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** Looks after every request, for cells of that error ratio: how often each verdict was the first, and after how many. */
function verdicts(test: SequentialTest, ratio: number, cells = 400) {
  const random = randomOf(7);
  let bad = 0;
  let looked = 0;
  for (let cell = 0; cell < cells; cell++) {
    for (let requests = 1, errors = 0; ; requests++) {
      if (random() < ratio) errors += 1;
      const verdict = sequentialVerdict({ requests, errors }, test);
      if (!verdict) continue;
      if (verdict === 'bad') bad += 1;
      looked += requests;
      break;
    }
  }
  return { bad: bad / cells, requests: looked / cells };
}

describe('The verdict on a synthetic cell', () => {
  const { test } = referenceOf({ peers: well, beforeOnset: well, sloErrorRatio: 0.05 }, measures);

  it('keeps its error rates although it looks after every request (seed 7)', () => {
    expect(verdicts(test, test.acceptable).bad, 'a good cell sent back').to.be.below(measures.falseAlarm + 0.02);
    expect(verdicts(test, test.unacceptable).bad, 'a bad cell caught').to.be.above(1 - measures.miss - 0.03);
  });

  it('comes the sooner the clearer the case', () => {
    expect(verdicts(test, 0.5).requests).to.be.below(10);
    expect(verdicts(test, 0).requests).to.equal(requestsForGood(test));
    expect(requestsForGood(test)).to.be.within(100, 200);
    expect(requestsForGood({ ...test, miss: 0.2 }), 'in a short canary').to.be.below(requestsForGood(test));
  });

  it('is made against the better of peers and the time before onset, and never above the objective', () => {
    const of = (peers: typeof well | null, beforeOnset: typeof well | null) =>
      referenceOf({ peers, beforeOnset, sloErrorRatio: 0.05 }, measures).test;
    expect(of(sick, well), 'sick peers do not lower the bar').to.deep.equal(of(well, well));
    expect(of(well, sick)).to.deep.equal(of(well, well));
    expect(of(null, null).acceptable).to.equal(0.001);
    expect(of({ requests: 10, errors: 5 }, null).acceptable, 'ten requests say nothing').to.equal(0.001);
    const noisy = { requests: 10_000, errors: 200 };
    expect(of(noisy, noisy).unacceptable).to.equal(0.05);
    for (const t of [of(well, well), of(sick, sick), of(noisy, noisy)])
      expect(t.unacceptable).to.be.above(t.acceptable);
  });

  it('is never good where all it could be compared with miss the objective themselves', () => {
    const baselines = { peers: null, beforeOnset: sick, sloErrorRatio: 0.05 };
    const seen = { requests: 5000, errors: 0 };
    const { verdict, against } = judgeCanary(seen, sick, null, { measures, baselines, sloLatencyMs: null }, 30);
    expect(verdict).to.equal(null);
    expect(against).to.contain('miss the objective themselves');
  });

  it('asks for a least number of requests, and for more than one error', () => {
    const request = {
      measures,
      baselines: { peers: null, beforeOnset: null, sloErrorRatio: 0.05 },
      sloLatencyMs: null,
    };
    const verdictOf = (requests: number, errors: number, minRequests = 30) =>
      judgeCanary({ requests, errors }, null, null, request, minRequests).verdict;
    expect(verdictOf(200, 0)).to.equal('good');
    expect(verdictOf(200, 0, 500)).to.equal(null);
    expect(verdictOf(1, 1)).to.equal(null);
    expect(verdictOf(2, 2)).to.equal('bad');
    expect(verdictOf(0, 0)).to.equal(null);
  });

  it('is bad where half of its answers miss the objective and those of its peers do not', () => {
    const request = { measures, baselines: { peers: null, beforeOnset: null, sloErrorRatio: 0.05 }, sloLatencyMs: 250 };
    const verdictOf = (p50Ms: number, peersP50Ms: number | null, samples = 100) =>
      judgeCanary({ requests: 1000, errors: 0 }, well, { p50Ms, peersP50Ms, samples }, request, 30).verdict;
    expect(verdictOf(20, 20)).to.equal('good');
    expect(verdictOf(400, 20)).to.equal('bad');
    expect(verdictOf(400, 20, 5), 'five samples say nothing').to.equal('good');
    expect(verdictOf(400, 300), 'its peers are as slow: nothing proves it good').to.equal(null);
  });

  it('counts what the peers answered beside it, not what they answered before', () => {
    const judge = new Judge({
      ...{ of: 'synthetic', baseline: { requests: 0, errors: 0 }, minRequests: 30, maxErrorRatio: 0.02 },
      ...{ notBeforeMs: 0, intervalMs: 3000, wanted: 'any' },
      canary: { measures, baselines: { peers: sick, beforeOnset: null, sloErrorRatio: 0.05 }, sloLatencyMs: null },
    });
    const peers = { requests: sick.requests + 1000, errors: sick.errors };
    expect(judge.look({ requests: 200, errors: 0 }, 1000, { peers, latencies: null })).to.equal('good');
    expect(judge.against).to.contain('0.1 % as good');
  });
});
