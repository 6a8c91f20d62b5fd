/** The containers of one installation on an engine: seen, asked for, and ended, also while other workers do the same. */
import { setTimeout as sleep } from 'node:timers/promises';
import type Docker from 'dockerode';
import { label } from './docker-records';

/** How long another worker's creation or removal of a container may take before we give up on it, in milliseconds. */
export const othersMayTakeMs = 30_000;
export const betweenLooksMs = 50;

export interface EngineError {
  statusCode?: number;
  message: string;
}

export class DockerContainers {
  private podman: Promise<boolean> | undefined;

  constructor(
    private readonly engine: Docker,
    /** Tells them apart from another's on the same engine. */
    readonly installation: string,
    /** How long a container has to end after SIGTERM, in seconds. */
    private readonly graceS: number,
  ) {}

  /** Whether the engine is Podman; one that does not answer is asked again. */
  isPodman(): Promise<boolean> {
    this.podman ??= this.engine.version().then(
      ({ Components = [] }) => Components.some(({ Name }) => /podman/i.test(Name)),
      (error: Error) => {
        this.podman = undefined;
        throw error;
      },
    );
    return this.podman;
  }

  nameOf(instance: string): string {
    return `understudy-${this.installation}-${instance}`;
  }

  ofInstance(instance: string): Promise<Docker.ContainerInspectInfo | undefined> {
    return this.inspect(this.nameOf(instance));
  }

  ofCell(cell: string): Promise<Docker.ContainerInfo[]> {
    return this.all([`${label('cell')}=${cell}`]);
  }

  /** Those that have these labels, `key=value`, whatever their state. */
  async all(labels: string[] = []): Promise<Docker.ContainerInfo[]> {
    const wanted = [`${label('installation')}=${this.installation}`, ...labels];
    return this.engine.listContainers({ all: true, filters: { label: wanted } });
  }

  /** Of containers that do not run, too. */
  async plannedPorts(): Promise<Set<number>> {
    return new Set((await this.all()).map(({ Labels }) => Number(Labels[label('port')])));
  }

  /** Makes it, unless another worker was faster and has the name. */
  async create(instance: string, labels: Record<string, string>, wanted: Docker.ContainerCreateOptions): Promise<void> {
    const named = { ...wanted, name: this.nameOf(instance), Labels: labels };
    await this.engine.createContainer(named).catch((error: EngineError) => {
      // Docker says 409, Podman 500 with these words.
      if (error.statusCode !== 409 && !/already in use/.test(error.message)) throw error as Error;
    });
  }

  async start(id: string): Promise<void> {
    await this.engine.getContainer(id).start();
  }

  async pause(id: string): Promise<void> {
    await this.engine
      .getContainer(id)
      .pause()
      .catch(unlessItIsSo(/already paused/));
  }

  async unpause(id: string): Promise<void> {
    await this.engine
      .getContainer(id)
      .unpause()
      .catch(unlessItIsSo(/not paused/));
  }

  async stop(id: string, state: string): Promise<void> {
    // A paused container hears SIGTERM only when it runs again.
    if (state === 'paused') await this.unpause(id);
    await this.engine.getContainer(id).stop({ t: this.graceS }).catch(unlessItIsSo(/./));
  }

  /** Stops and removes it; returns when it can no longer be seen. */
  async end(id: string, state: string): Promise<void> {
    if (state === 'running' || state === 'paused') await this.stop(id, state);
    await this.engine
      .getContainer(id)
      .remove({ force: true, v: true })
      .catch(async (error: EngineError) => {
        if (!/already in progress/i.test(error.message)) return unlessItIsSo(/no such container/i)(error);
        // Docker says so at once, and the container can still be seen until the other worker's removal has ended.
        await this.gone(id);
      });
  }

  private async gone(id: string): Promise<void> {
    const deadline = Date.now() + othersMayTakeMs;
    while ((await this.inspect(id)) !== undefined) {
      if (Date.now() >= deadline)
        throw new Error(`container ${id} is being removed by somebody else for ${othersMayTakeMs / 1000} s: try again`);
      await sleep(betweenLooksMs);
    }
  }

  private async inspect(idOrName: string): Promise<Docker.ContainerInspectInfo | undefined> {
    return this.engine
      .getContainer(idOrName)
      .inspect()
      .catch((error: EngineError) => {
        if (error.statusCode === 404) return undefined;
        throw error;
      });
  }
}

/** For calls that fail because what they are to bring about is so already, or the container has gone. */
function unlessItIsSo(words: RegExp) {
  return (error: EngineError): void => {
    if (error.statusCode !== 404 && error.statusCode !== 304 && !words.test(error.message)) throw error as Error;
  };
}
