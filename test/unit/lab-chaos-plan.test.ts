import { expect } from 'chai';
import { failureModes, lookAlikesOf, mechanismsOf, runnerOrders } from '../../lab/chaos/catalogue';
import { planEpisode, type EpisodePlan } from '../../lab/chaos/plan';
import { variantsOf } from '../../lab/chaos/services';
import { instanceFaults, labServices } from '../../lab/contract';

const plansOf = (seed: number, count: number): EpisodePlan[] =>
  Array.from({ length: count }, (_, number) => planEpisode(seed, number));
const faultsOf = (plans: readonly EpisodePlan[]) => plans.flatMap((p) => p.cells.flatMap((c) => c.faults));

describe('Plans of the chaos lab', () => {
  const plans = plansOf(1, 400);

  it('are the same for the same seed and number, and others for other ones', () => {
    expect(planEpisode(3, 17)).to.deep.equal(planEpisode(3, 17));
    expect(planEpisode(3, 17)).not.to.deep.equal(planEpisode(4, 17));
    expect(planEpisode(3, 17)).not.to.deep.equal(planEpisode(3, 18));
  });

  for (const seed of [1, 2, 11]) {
    it(`have every failure mode within the first 200 numbers of seed ${seed}`, () => {
      const modes = new Set(faultsOf(plansOf(seed, 200)).map(({ name }) => name));
      expect([...modes].sort()).to.deep.equal([...failureModes].sort());
    });
  }

  it('give seven of ten episodes one faulty cell, and a fifth of the faults no warning', () => {
    const faulty = plans.filter((plan) => faultsOf([plan]).length > 0);
    expect(faulty).to.have.length(280);
    for (const plan of faulty) expect(plan.cells.filter(({ faults }) => faults.length > 0)).to.have.length(1);
    const faults = faultsOf(plans);
    expect(faults.filter(({ predictable }) => !predictable).length / faults.length).to.be.within(0.18, 0.3);
  });

  it('have at least three look-alikes for every faulty episode', () => {
    const events = plans.flatMap((p) => p.cells.flatMap((c) => c.lookAlikes));
    expect(events.length).to.be.at.least(3 * 280);
  });

  it('use all services, at least 30 variants, one to four cells and two steps', () => {
    expect(new Set(plans.map(({ variant }) => variant.service))).to.deep.equal(new Set(labServices));
    expect(new Set(plans.map(({ variant }) => variant.id)).size).to.be.at.least(30);
    expect(new Set(plans.map(({ cells }) => cells.length))).to.deep.equal(new Set([1, 2, 3, 4]));
    const halfSeconds = plans.filter(({ stepMs }) => stepMs === 500).length / plans.length;
    expect(halfSeconds).to.be.within(0.6, 0.8);
  });

  it('do not tell a faulty episode by its step, its service or its number of cells', () => {
    const share = (of: EpisodePlan[], is: (plan: EpisodePlan) => boolean): number => of.filter(is).length / of.length;
    const many = plansOf(5, 1000);
    const faulty = many.filter((plan) => faultsOf([plan]).length > 0);
    const healthy = many.filter((plan) => faultsOf([plan]).length === 0);
    for (const is of [
      (plan: EpisodePlan) => plan.stepMs === 500,
      (plan: EpisodePlan) => plan.cells.length === 3,
      (plan: EpisodePlan) => plan.cells.some(({ gaps }) => gaps.length > 0),
      (plan: EpisodePlan) => plan.cells.some(({ lookAlikes }) => lookAlikes.length > 1),
    ]) {
      expect(share(faulty, is)).to.be.closeTo(share(healthy, is), 0.12);
    }
  });

  it('begin faults at times that follow nothing, and spread the expected failure over a decade and more', () => {
    const slow = faultsOf(plans).filter(({ expectedS }) => expectedS > 0);
    const starts = slow.map(({ startS }) => startS);
    expect(Math.min(...starts)).to.be.within(10, 14);
    expect(Math.max(...starts)).to.be.above(40);
    const times = slow.map(({ expectedS }) => expectedS);
    expect(Math.max(...times) / Math.min(...times)).to.be.above(15);
  });

  it('order only what the instance or the runner can do', () => {
    for (const { cells } of plans) {
      for (const { orders } of cells.flatMap((c) => [...c.faults, ...c.lookAlikes])) {
        expect(orders).not.to.deep.equal([]);
        const impossible = orders.filter(
          ({ kind, level }) =>
            !(kind in instanceFaults || kind in runnerOrders) || !Number.isFinite(level) || level < 0,
        );
        expect(impossible).to.deep.equal([]);
      }
    }
  });

  it('never let two events of a cell use one mechanism, since the end of one would end the other', () => {
    for (const { cells } of plans) {
      for (const { faults, lookAlikes } of cells) {
        const kinds = [...faults, ...lookAlikes].flatMap(({ orders }) => [...new Set(orders.map((o) => o.kind))]);
        const own = kinds.filter((kind) => kind !== 'bad-release');
        expect(new Set(own).size).to.equal(own.length);
      }
    }
  });

  it('end every look-alike that takes something, save those that harm nobody while they last', () => {
    for (const { lookAlikes } of plans.flatMap((p) => p.cells)) {
      for (const { name, orders } of lookAlikes) {
        if (['farther-clients', 'good-release', 'rolling-restart'].includes(name)) continue;
        expect(orders.at(-1)?.level, name).to.equal(0);
      }
    }
  });
});

describe('The catalogue of the chaos lab', () => {
  it('has a service for every failure mode', () => {
    const variants = labServices.flatMap(variantsOf);
    for (const mode of failureModes) {
      expect(variants.filter((v) => mechanismsOf(mode, v).length > 0).length, mode).to.be.at.least(4);
    }
  });

  it('gives look-alikes to every variant', () => {
    for (const variant of labServices.flatMap(variantsOf)) {
      expect(lookAlikesOf(variant).length, variant.id).to.be.at.least(6);
    }
  });
});
