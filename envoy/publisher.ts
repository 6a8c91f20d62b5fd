/**
 * Keeps the proxies at what the store says. Holds nothing of its own: at start, and whenever in doubt, everything is
 * built again from the store, so a process that died between a commit and its publication publishes it when it is back.
 */
import type { Logger } from 'pino';
import type { BlueprintVersion, CellRecord, ServiceRecord, TrafficState } from '../blueprints/records';
import type { Resource, ResourceKey } from './resources/resource';
import { resourcesOfSplit, serviceResources, type ServiceFacts } from './resources/service';
import type { TrafficStore } from './traffic-store';
import { listenerAddress, resourceProblems } from './validate';

interface Published {
  /** What the resources were built from; equal facts are not built, and not encoded, again. */
  facts: string;
  resources: Resource[];
  traffic: TrafficState;
}

export class Publisher {
  private readonly published = new Map<string, Published>();
  /** Why a service is not at what the store says, by service. */
  private readonly problems = new Map<string, string>();
  private readonly blueprints = new Map<string, BlueprintVersion>();
  private readonly wanted = new Set<string | null>();
  private running: Promise<void> = Promise.resolve();
  private next: Promise<void> | undefined;

  constructor(
    private readonly store: TrafficStore,
    /** Given all resources, and the services of which nothing is known now. */
    private readonly publish: (resources: Resource[], withheld: ReadonlySet<string>) => unknown,
    private readonly log: Logger,
    /** Told which services were published anew, after they were. */
    private readonly onPublished: (services: string[]) => void = () => undefined,
  ) {}

  /**
   * Reads the service, or all with null, from the store and publishes what follows. Resolves after a reading that
   * began after the call; calls that come together share one. Rejects if the store cannot be read.
   */
  refresh(service: string | null): Promise<void> {
    this.wanted.add(service);
    this.next ??= this.running
      .catch(() => undefined)
      .then(() => {
        this.next = undefined;
        return (this.running = this.run());
      });
    return this.next;
  }

  /** What a proxy must have taken to follow the service's split as it is published now. */
  splitKeys(service: string): ResourceKey[] {
    return resourcesOfSplit(this.published.get(service)?.resources ?? [], service);
  }

  /** The epoch of the service's split that is published; undefined before it first is. */
  epochOf(service: string): number | undefined {
    return this.published.get(service)?.traffic.epoch;
  }

  /** The services that are published. */
  services(): string[] {
    return [...this.published.keys()];
  }

  /** Why the service's present state in the store could not be published; undefined if it was. */
  problem(service: string): string | undefined {
    return this.problems.get(service);
  }

  /** Services that cannot be published as the store has them, with why. */
  allProblems(): ReadonlyMap<string, string> {
    return this.problems;
  }

  /** The split of the service that is published. */
  trafficOf(service: string): TrafficState | undefined {
    return this.published.get(service)?.traffic;
  }

  private async run(): Promise<void> {
    const wanted = new Set(this.wanted);
    this.wanted.clear();
    const services = await this.store.services();
    const known = new Set(services.map(({ name }) => name));
    for (const gone of [...this.published.keys()].filter((name) => !known.has(name))) this.published.delete(gone);
    for (const gone of [...this.problems.keys()].filter((name) => !known.has(name))) this.problems.delete(gone);
    const due = services.filter(({ name }) => wanted.has(null) || wanted.has(name) || !this.published.has(name));
    const anew: string[] = [];
    for (const service of due) if (this.take(await this.read(service))) anew.push(service.name);
    const withheld = new Set([...this.problems.keys()].filter((name) => !this.published.has(name)));
    this.publish(
      [...this.published.values()].flatMap(({ resources }) => resources),
      withheld,
    );
    if (anew.length > 0) this.onPublished(anew);
  }

  private async read(service: ServiceRecord): Promise<ServiceFacts> {
    const cells = await this.store.cells(service.name);
    const traffic = await this.store.traffic(service.name);
    if (!traffic) throw new Error(`service ${service.name} has gone while it was read`);
    return { service, cells, traffic, blueprints: await this.blueprintsOf(cells) };
  }

  /**
   * Builds one service and answers whether anything of it is new. If it cannot be built, what was published of it
   * stays, and the others are not held up.
   */
  private take(facts: ServiceFacts): boolean {
    const { name } = facts.service;
    const from = JSON.stringify(facts);
    if (this.published.get(name)?.facts === from && !this.problems.has(name)) return false;
    const { resources, problem } = this.build(facts);
    if (problem) {
      if (this.problems.get(name) !== problem)
        this.log.error(
          { service: name, problem },
          `service ${name} cannot be published and stays as it was: ${problem}`,
        );
      this.problems.set(name, problem);
      return false;
    }
    this.problems.delete(name);
    this.published.set(name, { facts: from, resources, traffic: facts.traffic });
    return true;
  }

  /** The resources of a service, or why they must not be published. */
  build(facts: ServiceFacts): { resources: Resource[]; problem: string | undefined } {
    try {
      const resources = serviceResources(facts);
      const { address, port } = facts.service.spec.listener;
      const others = [...this.published].filter(([name]) => name !== facts.service.name);
      const listeners = others.flatMap(([, { resources: theirs }]) => theirs.filter((r) => r.type === 'listener'));
      const taken = listeners.find(({ message }) => listenerAddress(message) === `${address}:${port}`);
      const problems = resourceProblems(resources);
      if (taken) problems.push(`listener ${address}:${port} is already that of service ${taken.name}`);
      return { resources, problem: problems.join('; ') || undefined };
    } catch (error) {
      return { resources: [], problem: (error as Error).message };
    }
  }

  /** A blueprint version never changes, so it is read once. */
  private async blueprintsOf(cells: CellRecord[]): Promise<BlueprintVersion[]> {
    const found = new Map<string, BlueprintVersion>();
    for (const { blueprint } of cells) {
      const key = `${blueprint.name}@${blueprint.version}`;
      const version = this.blueprints.get(key) ?? (await this.store.blueprint(blueprint.name, blueprint.version));
      if (!version) continue;
      this.blueprints.set(key, version);
      found.set(key, version);
    }
    return [...found.values()];
  }
}
