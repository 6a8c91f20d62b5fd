/** A proxy in the mind: answers a real `AdsStream` by the rules, without a network, and objects to what breaks them. */
import { expect } from 'chai';
import { typeOfUrl, typeUrl, type ResourceKey, type ResourceType } from '../../envoy/resources/resource';
import type { DiscoveryAnswer } from '../../envoy/xds/encoding';
import type { NodeMemory } from '../../envoy/xds/node-memory';
import type { ResourceSet, VersionedResource } from '../../envoy/xds/resource-set';
import { AdsStream, type Protocol } from '../../envoy/xds/stream';
import type { DiscoveryRequest } from '../../envoy/xds/subscription';

const types: ResourceType[] = ['cluster', 'endpoints', 'listener', 'route'];
const isWhole = (type: ResourceType): boolean => type === 'cluster' || type === 'listener';
const idOf = ({ type, name, version }: VersionedResource): string => `${type} ${name} ${version}`;

/** What a proxy knows of one type. */
interface Course {
  names: Set<string>;
  held: Map<string, VersionedResource>;
  version: string;
  nonce: string;
  open: DiscoveryAnswer | undefined;
}

export class ModelProxy {
  private stream!: AdsStream;
  private readonly courses = new Map<ResourceType, Course>();
  private readonly refused = new Set<string>();
  /** What may be sent although it is held: it was asked for anew, warms, or was refused together with another. */
  private readonly mayRepeat = new Set<string>();
  private heard = 0;

  constructor(
    private readonly protocol: Protocol,
    private readonly set: ResourceSet,
    private readonly memory: NodeMemory,
  ) {
    for (const type of types)
      this.courses.set(type, { names: new Set(), held: new Map(), version: '', nonce: '', open: undefined });
  }

  leave(): void {
    this.stream.close();
  }

  /** Comes, or comes back with what it holds. */
  connect(): void {
    const stillWaits = [...this.courses].flatMap(([type, { open }]) =>
      (open?.resources ?? []).map(({ name }) => `${type} ${name}`),
    );
    for (const one of stillWaits) this.mayRepeat.add(one);
    this.stream = new AdsStream(
      this.protocol,
      this.set,
      (answer) => this.hear(answer),
      // Every event is followed by a flush here.
      () => undefined,
      undefined,
      this.memory,
    );
    let isNew = true;
    for (const type of types) {
      const course = this.courses.get(type)!;
      course.open = undefined;
      course.nonce = '';
      isNew &&= this.protocol === 'delta' ? course.held.size === 0 : course.version === '';
      // Who brings nothing may have started anew, and is offered what it refused once more.
      if (isNew) for (const refused of [...this.refused]) if (refused.startsWith(type)) this.refused.delete(refused);
      if (!isWhole(type) && course.names.size === 0) continue;
      if (this.protocol === 'sotw') for (const name of course.names) this.mayRepeat.add(`${type} ${name}`);
      this.send(type, {
        resource_names_subscribe: [...course.names],
        initial_resource_versions: Object.fromEntries([...course.held].map(([name, { version }]) => [name, version])),
      });
    }
  }

  published(keys: ResourceKey[]): void {
    this.stream.touch(keys);
    this.stream.flush();
  }

  ack(type: ResourceType): void {
    const course = this.courses.get(type)!;
    const answer = course.open;
    if (!answer) return;
    course.open = undefined;
    course.nonce = answer.nonce;
    this.take(course, answer);
    this.send(type, { response_nonce: answer.nonce });
  }

  /** Refuses the newest of what is open, by name or without one. */
  nack(type: ResourceType, isNamed: boolean): void {
    const course = this.courses.get(type)!;
    const answer = course.open;
    const fresh = answer?.resources.filter(({ name, version }) => course.held.get(name)?.version !== version) ?? [];
    if (!answer || fresh.length === 0) return;
    course.open = undefined;
    course.nonce = answer.nonce;
    for (const resource of isNamed ? fresh.slice(0, 1) : fresh) this.refused.add(idOf(resource));
    for (const { name } of answer.resources) this.mayRepeat.add(`${type} ${name}`);
    const message = isNamed ? `Error adding ${type} ${fresh[0]!.name}: no` : 'no';
    this.send(type, { response_nonce: answer.nonce, error_detail: { message } });
  }

  /** As Envoy does: asks for the endpoints of its clusters and the routes of its listeners, and for no others. */
  follow(): void {
    for (const [type, parent] of [
      ['endpoints', 'cluster'],
      ['route', 'listener'],
    ] as const) {
      const wanted = [...this.courses.get(parent)!.held.keys()];
      const { names } = this.courses.get(type)!;
      this.change(
        type,
        wanted.filter((name) => !names.has(name)),
        [...names].filter((name) => !wanted.includes(name)),
      );
    }
  }

  subscribe(name: string): void {
    this.change('endpoints', [name], []);
  }

  unsubscribe(name: string): void {
    this.change('endpoints', [], [name]);
  }

  /** Accepts and follows until nothing more comes. */
  settle(): void {
    // What it left unsaid about routes it no longer has is decided with time.
    this.stream.hasSettled = true;
    this.stream.flush();
    for (let round = 0; ; round += 1) {
      expect(round, 'it comes to rest').to.be.below(50);
      const before = this.heard;
      for (const type of types) this.ack(type);
      this.follow();
      if (before === this.heard) return;
    }
  }

  held(type: ResourceType): Record<string, string> {
    return versions([...this.courses.get(type)!.held.values()]);
  }

  /** What it should have of what it asked for. */
  due(type: ResourceType): Record<string, string> {
    const view = this.set.seenBy('model');
    const wanted = isWhole(type) ? view.names(type) : this.courses.get(type)!.names;
    return versions([...wanted].flatMap((name) => view.get(type, name) ?? []));
  }

  private change(type: ResourceType, add: string[], drop: string[]): void {
    const course = this.courses.get(type)!;
    const isFirst = course.nonce === '' && course.names.size === 0;
    if (add.length === 0 && (drop.length === 0 || isFirst)) return;
    for (const name of add) {
      course.names.add(name);
      this.mayRepeat.add(`${type} ${name}`);
    }
    for (const name of drop) {
      course.names.delete(name);
      course.held.delete(name);
    }
    this.send(type, { resource_names_subscribe: add, resource_names_unsubscribe: drop });
  }

  private send(type: ResourceType, delta: DiscoveryRequest): void {
    const { names, nonce, version } = this.courses.get(type)!;
    const { response_nonce = nonce, error_detail = null } = delta;
    const whole = { resource_names: [...names], version_info: version, response_nonce, error_detail };
    const request = this.protocol === 'delta' ? delta : whole;
    this.stream.hear({ type_url: typeUrl(type), node: { id: 'model' }, ...request });
    this.stream.flush();
  }

  private hear(answer: DiscoveryAnswer): void {
    const type = typeOfUrl(answer.typeUrl)!;
    const course = this.courses.get(type)!;
    expect(course.open, `${type}: one response is under way at a time`).to.equal(undefined);
    const isTold = new Set(answer.resources.map(({ name }) => name));
    expect(isTold.size, 'no name twice').to.equal(answer.resources.length);
    const isTotal = this.protocol === 'sotw' && isWhole(type);
    for (const resource of answer.resources) {
      const key = `${type} ${resource.name}`;
      expect(this.refused.has(idOf(resource)), `${idOf(resource)} was refused`).to.equal(false);
      if (!isTotal && !this.mayRepeat.has(key))
        expect(course.held.get(resource.name)?.version, `${key} is held already`).not.to.equal(resource.version);
      this.mayRepeat.delete(key);
      if (type === 'cluster' && course.held.get(resource.name)?.version !== resource.version)
        this.mayRepeat.add(`endpoints ${resource.name}`);
    }
    const gone = isTotal ? [...course.held.keys()].filter((name) => !isTold.has(name)) : answer.removed;
    for (const name of gone) if (course.held.has(name)) this.mayGo(type, name);
    if (answer.resources.length + answer.removed.length === 0)
      expect(isWhole(type), `${type}: an answer says something`).to.equal(true);
    course.open = answer;
    this.heard += 1;
  }

  /** Never is a cluster taken away that a route names which the proxy uses. */
  private mayGo(type: ResourceType, name: string): void {
    if (type !== 'cluster') return;
    for (const { references } of this.courses.get('route')!.held.values()) {
      const isNamed = references !== 'unknown' && references.some((r) => r.type === 'cluster' && r.name === name);
      expect(isNamed, `cluster ${name} goes before the routes that name it`).to.equal(false);
    }
  }

  private take(course: Course, answer: DiscoveryAnswer): void {
    const type = typeOfUrl(answer.typeUrl)!;
    if (this.protocol === 'sotw' && isWhole(type)) course.held.clear();
    for (const resource of answer.resources)
      if (isWhole(type) || course.names.has(resource.name)) course.held.set(resource.name, resource);
    for (const name of answer.removed) course.held.delete(name);
    course.version = answer.version;
    // By state of the world nobody says that endpoints or routes are gone; a proxy drops them with their parent.
    if (this.protocol === 'sotw' && type === 'cluster') drop(this.courses.get('endpoints')!, course.held);
    if (this.protocol === 'sotw' && type === 'listener') drop(this.courses.get('route')!, course.held);
  }
}

function drop(child: Course, parents: Map<string, unknown>): void {
  for (const name of child.held.keys()) if (!parents.has(name)) child.held.delete(name);
}

function versions(resources: VersionedResource[]): Record<string, string> {
  return Object.fromEntries(resources.map(({ name, version }) => [name, version]));
}
