import { MockActivityEnvironment } from '@temporalio/testing';
import { expect } from 'chai';
import { assessing } from '../../activities/assess';
import { asFailure } from '../../activities/errors';
import { trafficShifts } from '../../activities/shift-traffic';
import type { Ports } from '../../activities/ports';
import { syntheticCells } from '../../activities/synthetic-cell';
import { FleetStoppedError, type CellRecord } from '../../blueprints/records';
import { policySchema } from '../../blueprints/schema';
import { TracesLeftError } from '../../cells/life/rest';
import { KeyReusedError, type ApplyResult, type CellTraffic, type TrafficView } from '../../envoy/traffic-client';
import { quietRuntime } from '../support/failover-bench';
import type { ShiftRequest, ShiftResult, WarmResult } from '../../workflows/steps';
import { factsOf } from '../support/failover-world';

const failover = 'failover/shop/shop-a';
const synthetic = 'shop-a-understudy-1';
const applied: ApplyResult = {
  epoch: 7,
  split: [{ cell: 'shop-a', shareBp: 10_000, coverInstances: 0 }],
  acknowledged: ['envoy'],
  refused: [],
  pending: [],
  gone: [],
  moved: [],
  outcome: 'COMPLETE',
  rolledBackEpoch: 0,
  tookMs: 3,
};
const request = { failover, service: 'shop', cell: 'shop-a', syntheticCell: synthetic, key: 'key', reason: 'test' };

function cellOf(name: string, overrides: Partial<CellRecord> = {}): CellRecord {
  const instances = [1, 2].map((n) => ({ name: `${name}-${n}`, address: '127.0.0.1', port: n }));
  const blueprint = { name: 'shop', version: 1 };
  const role = 'primary';
  return {
    ...{ name, service: 'shop', role, zone: 'local', blueprint, state: 'active', instances },
    ...{ sourceCell: null, owner: null },
    ...overrides,
  };
}

const ownSynthetic = cellOf(synthetic, { role: 'synthetic', state: 'serving', sourceCell: 'shop-a', owner: failover });

function traffic(cell: string, overrides: Partial<CellTraffic>): CellTraffic {
  return {
    ...{ cell, shareBp: 0, coverInstances: 0, measured: true, requestsPerSecond: 0, errorRatio: 0 },
    ...{ requestsInFlight: 0, measuredBp: 0, ageMs: 0, requestsTotal: 0, errorsTotal: 0 },
    ...overrides,
  };
}

/** Ports that tell in which order they were used. Views and results come one after another, the last one for ever. */
class FakePorts {
  readonly calls: string[] = [];
  views: (Partial<TrafficView> | null)[] = [{}];
  removals: Partial<ApplyResult>[] = [{}];
  whyNotRetired: Error | null = null;

  ports(): Ports {
    const next = <T>(list: T[]): T => (list.length > 1 ? list.shift()! : list[0]!);
    const service = {
      name: 'shop',
      spec: { policy: policySchema.parse({}), healthCheck: {}, slo: {}, mirror: { percent: 0 } },
    };
    const did = async (what: string) => void this.calls.push(what);
    return {
      store: {
        service: async () => service,
        cell: async (name: string) => (name === synthetic ? ownSynthetic : cellOf(name)),
        cells: async () => [
          cellOf('shop-a'),
          cellOf('other-understudy-1', { role: 'synthetic', owner: 'failover/shop/shop-b' }),
          ownSynthetic,
        ],
        blueprint: async () => ({ name: 'shop', version: 1, spec: { capacity: { requestsPerSecond: 100 } } }),
        traffic: async () => ({
          service: 'shop',
          epoch: 6,
          split: [
            { cell: 'other-understudy-1', shareBp: 4000, coverInstances: 0 },
            { cell: synthetic, shareBp: 6000, coverInstances: 0 },
          ],
        }),
      },
      traffic: {
        removeCell: async () => {
          await did('remove');
          return { ...applied, ...next(this.removals) };
        },
        getTraffic: async () => {
          await did('look');
          const view = next(this.views);
          if (!view) throw new Error('the control plane is away');
          return { service: 'shop', epoch: 7, cells: [], proxies: ['envoy'], ...view };
        },
      },
      cells: {
        rest: () => did('rest'),
        retire: async () => {
          await did('retire');
          if (this.whyNotRetired) throw this.whyNotRetired;
        },
      },
    } as unknown as Ports;
  }

  /** Without a limit of time that a test could reach, unless it is about that limit. */
  async run(name: 'restAtIdle' | 'retireSyntheticCell', limitMs = 60_000): Promise<void> {
    const patience = { proxiesBackMs: limitMs, inFlightMs: limitMs, pollMs: 1, warmUpLooks: 1 };
    await new MockActivityEnvironment().run(syntheticCells(this.ports(), patience)[name], request);
  }
}

describe('A synthetic cell that is warmed', () => {
  /** Looks at a cell that is found cold so often, and warm from then on. */
  async function warm(coldLooks: number) {
    let looks = 0;
    const ports = new FakePorts().ports();
    ports.cells = {
      warm: async () => {
        const isWarm = ++looks > coldLooks;
        const found = { entries: 0, connections: 4, probe: null, steps: [] };
        return { ...found, warm: isWarm, reasons: isWarm ? [] : ['p95 is 1915 ms'] };
      },
    } as unknown as Ports['cells'];
    const patience = { proxiesBackMs: 1, inFlightMs: 1, pollMs: 1, warmUpLooks: 3 };
    const activities = syntheticCells(ports, patience);
    const result: WarmResult = await new MockActivityEnvironment().run(activities.warmSyntheticCell, request);
    return { passed: result.passed, looks };
  }

  it('is looked at again when it was slow in its first moments, and taken when it is warm then', async () => {
    expect(await warm(0)).to.deep.equal({ passed: true, looks: 1 });
    expect(await warm(2)).to.deep.equal({ passed: true, looks: 3 });
  });

  it('is cold if it stays so', async () => {
    expect(await warm(9)).to.deep.equal({ passed: false, looks: 3 });
  });
});

describe('A source', () => {
  /** What the store is told about the source when the split has become this. */
  async function statesAfter(sourceBp: number, before: CellRecord['state'], mirrored: number): Promise<string[]> {
    const states: string[] = [];
    const split = [
      { cell: 'shop-a', shareBp: sourceBp, coverInstances: 0 },
      { cell: synthetic, shareBp: 10_000 - sourceBp, coverInstances: 0 },
    ];
    const cells = [traffic('shop-a', { shareBp: 5000 }), traffic(synthetic, { shareBp: 5000 })];
    const ports = {
      store: {
        blueprint: async () => ({ name: 'shop', version: 1, spec: { capacity: { requestsPerSecond: 100 } } }),
        cell: async () => cellOf('shop-a', { state: before }),
        service: async () => ({ spec: { mirror: { percent: mirrored } } }),
        updateCell: async (name: string, { state }: { state: string }) =>
          name === 'shop-a' ? void states.push(state) : undefined,
      },
      traffic: {
        getTraffic: async () => ({ service: 'shop', epoch: 7, proxies: ['envoy'], cells }),
        applySplit: async () => ({ ...applied, split }),
      },
    } as unknown as Ports;
    const shift: ShiftRequest = {
      ...request,
      ...{ purpose: 'ordered' as const, targetBp: 10_000 - sourceBp, knownBp: 5000, coverInstances: 0 },
      ...{ minSourceLoad: 0, blueprint: { name: 'shop', version: 1 }, byPerson: true },
    };
    await new MockActivityEnvironment().run(trafficShifts(ports).shiftTraffic, shift);
    return states;
  }

  it('is quarantined once its whole share is taken, where its service allows copies of requests', async () => {
    expect(await statesAfter(0, 'active', 100)).to.deep.equal(['quarantined']);
    expect(await statesAfter(0, 'active', 0)).to.deep.equal([]);
    expect(await statesAfter(2000, 'active', 100)).to.deep.equal([]);
  });

  it('is so no more as soon as it carries again', async () => {
    expect(await statesAfter(2000, 'quarantined', 100)).to.deep.equal(['active']);
  });
});

describe('A share that is given back while the fleet is stopped', () => {
  /** The traffic API in a stopped fleet: only an override changes anything. */
  async function giveBack(byPerson: boolean): Promise<ShiftResult> {
    const view = {
      ...{ service: 'shop', epoch: 7, proxies: ['envoy'] },
      cells: [traffic('shop-a', { shareBp: 4000 }), traffic(synthetic, { shareBp: 6000 })],
    };
    const ports = {
      store: {
        blueprint: async () => ({ name: 'shop', version: 1, spec: { capacity: { requestsPerSecond: 100 } } }),
        updateCell: async () => undefined,
        cell: async () => undefined,
      },
      traffic: {
        getTraffic: async () => view,
        applySplit: async ({ override }: { override: boolean }) => {
          if (!override) throw new FleetStoppedError({ since: '2026-11-22T03:00:00Z', by: 'ada', reason: 'release' });
          return applied;
        },
      },
    } as unknown as Ports;
    const shift: ShiftRequest = {
      ...request,
      ...{ purpose: 'give-back' as const, targetBp: 0, knownBp: 6000, coverInstances: 2, minSourceLoad: 0 },
      ...{ blueprint: { name: 'shop', version: 1 }, byPerson },
    };
    return new MockActivityEnvironment().run(trafficShifts(ports).shiftTraffic, shift);
  }

  it('goes back when a person has ordered it', async () => {
    expect(await giveBack(true)).to.include({ applied: true, syntheticBp: 0 });
  });

  it('stays where it is when nobody has, and the answer says who stopped the fleet', async () => {
    const { applied: isApplied, why, syntheticBp } = await giveBack(false);
    expect({ isApplied, syntheticBp }).to.deep.equal({ isApplied: false, syntheticBp: 6000 });
    expect(why).to.contain('by ada (release)');
  });
});

describe('A shift whose answer was lost', () => {
  it('is answered by what it made, on whatever figures it would be made now', async () => {
    const asked: string[] = [];
    const ports = {
      store: {
        blueprint: async () => ({ name: 'shop', version: 1, spec: { capacity: { requestsPerSecond: 100 } } }),
        updateCell: async () => undefined,
        cell: async () => undefined,
      },
      traffic: {
        getTraffic: async () => ({
          ...{ service: 'shop', epoch: 7, proxies: ['envoy'] },
          cells: [traffic('shop-a', { shareBp: 4000 }), traffic(synthetic, { shareBp: 6000 })],
        }),
        applySplit: async () => {
          throw new KeyReusedError('used for another request');
        },
        awaitChange: async (service: string, key: string) => {
          asked.push(`${service} ${key}`);
          return applied;
        },
      },
    } as unknown as Ports;
    const shift: ShiftRequest = {
      ...request,
      ...{ purpose: 'give-back' as const, targetBp: 0, knownBp: 6000, coverInstances: 2, minSourceLoad: 0 },
      ...{ blueprint: { name: 'shop', version: 1 } },
    };
    const result = await new MockActivityEnvironment().run(trafficShifts(ports).shiftTraffic, shift);
    expect(asked).to.deep.equal([`shop ${request.key}`]);
    expect(result).to.include({ applied: true, epoch: applied.epoch });
  });
});

describe('A synthetic cell that is sent away', () => {
  before(quietRuntime);

  it('goes with every other that its failover owns, each removed by a change of its own', async () => {
    const fake = new FakePorts();
    const ports = fake.ports();
    const keys = new Set<string>();
    const second = { ...ownSynthetic, name: `${synthetic}-b` };
    ports.store.cells = async () => [ownSynthetic, second];
    const { removeCell } = ports.traffic;
    ports.traffic.removeCell = (order) => (keys.add(order.idempotencyKey), removeCell(order));
    const patience = { proxiesBackMs: 60_000, inFlightMs: 60_000, pollMs: 1 };
    await new MockActivityEnvironment().run(syntheticCells(ports, patience).retireSyntheticCell, request);
    expect(keys.size).to.equal(2);
  });

  for (const name of ['restAtIdle', 'retireSyntheticCell'] as const) {
    it(`goes by ${name} through a fleet-wide stop only if a person sends it`, async () => {
      const overrides: (boolean | undefined)[] = [];
      for (const byPerson of [true, false, undefined]) {
        const ports = new FakePorts().ports();
        const { removeCell } = ports.traffic;
        ports.traffic.removeCell = (order) => (overrides.push(order.override), removeCell(order));
        const patience = { proxiesBackMs: 60_000, inFlightMs: 60_000, pollMs: 1 };
        const ordered = byPerson === undefined ? request : { ...request, byPerson };
        await new MockActivityEnvironment().run(syntheticCells(ports, patience)[name], ordered);
      }
      expect(overrides).to.deep.equal([true, false, false]);
    });

    const refused = [{ node: 'envoy-2', resource: 'endpoints shop', reason: 'no' }];
    for (const [what, unsettled] of [
      ['has not answered', { pending: ['envoy-2'] }],
      ['refuses', { refused }],
    ] as const) {
      it(`is left as it is by ${name}, to be tried again, while a proxy ${what} its removal`, async () => {
        const fake = new FakePorts();
        fake.removals = [unsettled as Partial<ApplyResult>];
        const err = await fake.run(name).then(
          () => null,
          (e: Error) => e,
        );
        expect(err?.message).to.contain('envoy-2');
        expect(asFailure(err), 'a retry may mend it').to.equal(err);
        expect(fake.calls).to.deep.equal(['remove']);
      });
    }
  }

  it('is retired only once its requests in flight have ended, by a report from after its removal', async () => {
    const fake = new FakePorts();
    fake.views = [
      { cells: [traffic(synthetic, { ageMs: 60_000 })] },
      null,
      { cells: [traffic(synthetic, { requestsInFlight: 2 })] },
      { cells: [traffic('shop-a', { requestsInFlight: 9 }), traffic(synthetic, {})] },
    ];
    await fake.run('retireSyntheticCell');
    expect(fake.calls).to.deep.equal(['remove', 'look', 'look', 'look', 'look', 'retire']);
  });

  it('is retired at once where no report covers it', async () => {
    const fake = new FakePorts();
    fake.views = [{ cells: [traffic(synthetic, { measured: false, requestsInFlight: 5 })] }];
    await fake.run('retireSyntheticCell');
    expect(fake.calls).to.deep.equal(['remove', 'look', 'retire']);
  });

  it('is retired in the end although a request hangs', async () => {
    const fake = new FakePorts();
    fake.views = [{ cells: [traffic(synthetic, { requestsInFlight: 1 })] }];
    await fake.run('retireSyntheticCell', 20);
    expect(fake.calls.at(-1)).to.equal('retire');
  });

  it('is retired only once the proxies are connected again and have taken its removal', async () => {
    const fake = new FakePorts();
    fake.removals = [{ acknowledged: [], gone: ['envoy'] }, {}];
    fake.views = [{ proxies: [] }, null, { proxies: [] }, {}];
    await fake.run('retireSyntheticCell');
    expect(fake.calls).to.deep.equal(['remove', 'look', 'look', 'look', 'look', 'remove', 'look', 'retire']);
  });

  it('has ended where only others keep something for it, and not where it could not be ended', async () => {
    const fake = new FakePorts();
    fake.views = [{ cells: [traffic(synthetic, { measured: false })] }];
    fake.whyNotRetired = new TracesLeftError('the dead source keeps a slot');
    await fake.run('retireSyntheticCell');
    fake.whyNotRetired = new Error('the cloud is away');
    const failure = await fake.run('retireSyntheticCell').catch((error: Error) => error.message);
    expect(failure).to.equal('the cloud is away');
  });

  it('is retired in the end although no proxy ever connects', async () => {
    const fake = new FakePorts();
    fake.removals = [{ acknowledged: [] }];
    fake.views = [{ proxies: [] }];
    await fake.run('retireSyntheticCell', 20);
    expect(fake.calls.filter((c) => c !== 'look')).to.deep.equal(['remove', 'retire']);
  });
});

describe('What a failover reads before it begins', () => {
  const load = (fake: FakePorts, of = failover) =>
    assessing(fake.ports(), async () => factsOf()).loadContext({ failover: of, service: 'shop', cell: 'shop-a' });

  it('names the synthetic cell that it still holds, with its share and its counters', async () => {
    const fake = new FakePorts();
    fake.views = [{ cells: [traffic(synthetic, { shareBp: 6000, requestsTotal: 70, errorsTotal: 1 })] }];
    const { leftover, sourceBp } = await load(fake);
    expect(sourceBp).to.equal(0);
    expect(leftover).to.deep.equal({
      syntheticCell: synthetic,
      instances: 2,
      shareBp: 6000,
      totals: { source: { requests: 0, errors: 0 }, synthetic: { requests: 70, errors: 1 } },
    });
  });

  it('names none that another failover holds', async () => {
    expect(await load(new FakePorts(), 'failover/shop/shop-c')).to.not.have.property('leftover');
  });
});
