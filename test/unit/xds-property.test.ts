/**
 * Whatever is published, refused, asked for and cut off, in any order: a proxy ends up with what it asked for, is never
 * sent what it refused or holds, has one answer to give at a time, and never loses a cluster that its routes name.
 */
import { expect } from 'chai';
import fc from 'fast-check';
import type { Resource, ResourceType } from '../../envoy/resources/resource';
import { NodeMemory } from '../../envoy/xds/node-memory';
import { ResourceSet } from '../../envoy/xds/resource-set';
import type { Protocol } from '../../envoy/xds/stream';
import { ModelProxy } from '../support/model-proxy';
import { cluster, endpoints, listener, route } from '../support/xds-world';

const names = ['a', 'b', 'c'];
const types: ResourceType[] = ['cluster', 'endpoints', 'listener', 'route'];
const name = fc.constantFrom(...names);
const type = fc.constantFrom(...types);
const revision = fc.integer({ min: 1, max: 3 });

/** Which clusters there are, at which revision, and which of them the routes name. */
const state = fc.record({
  clusters: fc.dictionary(name, fc.tuple(revision, revision)),
  listener: fc.option(revision),
  route: revision,
  routed: fc.subarray(names),
});
type State = typeof state extends fc.Arbitrary<infer T> ? T : never;

function resourcesOf({ clusters, listener: l, route: r, routed }: State, offset = 0): Resource[] {
  const there = Object.entries(clusters);
  const named = routed.filter((n) => n in clusters);
  return [
    ...there.map(([n, [own]]) => cluster(n, own + offset)),
    ...there.map(([n, [, its]]) => endpoints(n, its + offset)),
    ...(l ? [listener('l', l + offset), route('l', named, r + offset)] : []),
  ];
}

const command = fc.oneof(
  { weight: 3, arbitrary: fc.record({ do: fc.constant('publish' as const), state }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('ack' as const), type }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('nack' as const), type, isNamed: fc.boolean() }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('follow' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('subscribe' as const), name }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('unsubscribe' as const), name }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('reconnect' as const), meanwhile: fc.option(state) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('settle' as const) }) },
);

for (const protocol of ['delta', 'sotw'] as Protocol[]) {
  describe(`xDS subscriptions under any sequence of events (${protocol})`, () => {
    it('serve what is asked for, once, make before break, and nothing that was refused', () => {
      fc.assert(
        fc.property(fc.array(command, { maxLength: 60 }), state, (commands, last) => {
          const set = new ResourceSet();
          set.update([]);
          const proxy = new ModelProxy(protocol, set, new NodeMemory());
          proxy.connect();
          for (const step of commands) {
            if (step.do === 'publish') proxy.published(set.update(resourcesOf(step.state)));
            if (step.do === 'ack') proxy.ack(step.type);
            if (step.do === 'nack') proxy.nack(step.type, step.isNamed);
            if (step.do === 'follow') proxy.follow();
            if (step.do === 'subscribe') proxy.subscribe(step.name);
            if (step.do === 'unsubscribe') proxy.unsubscribe(step.name);
            if (step.do === 'reconnect') {
              proxy.leave();
              if (step.meanwhile) set.update(resourcesOf(step.meanwhile));
              proxy.connect();
            }
            if (step.do === 'settle') proxy.settle();
          }
          // Versions that nobody has refused yet, so that nothing stands in the way of the end.
          proxy.published(set.update(resourcesOf(last, 10)));
          proxy.settle();
          for (const t of types) expect(proxy.held(t), t).to.deep.equal(proxy.due(t));
        }),
        { numRuns: 300 },
      );
    });
  });
}
