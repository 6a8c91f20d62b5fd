/** A container engine in memory that answers as Docker does where Podman does not: so that it can be tested where there is no Docker. */
import http from 'node:http';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

interface Container {
  Id: string;
  Name: string;
  Labels: Record<string, string>;
  Status: string;
}

export interface EngineLikeDocker {
  socketPath: string;
  containers: Map<string, Container>;
  /** Another worker takes the name of the next container to be made, which can be seen only after so many looks. */
  anotherMakesTheNext(looks: number): void;
  /** The next removal is answered with: somebody else's is under way. It has ended after so many looks. */
  anotherRemovesTheNext(looks: number): void;
  /** What any further container is refused with, for good. */
  refuse(message: string): void;
  /** Whether its only network, `inner`, is internal. */
  isInternal: boolean;
  close(): Promise<void>;
}

export async function engineLikeDocker(): Promise<EngineLikeDocker> {
  const volumes = new Map<string, { Name: string; Labels: Record<string, string> }>();
  let hidden: { container: Container; looks: number } | undefined;
  let going: { id: string; looks: number } | undefined;
  let makesNext: number | undefined;
  let removesNext: number | undefined;
  let refusal: string | undefined;
  let made = 0;
  const dir = mkdtempSync(join(tmpdir(), 'understudy-like-docker-'));
  const socketPath = join(dir, 'engine.sock');

  const see = (idOrName: string): Container | undefined => {
    if (hidden && (hidden.looks -= 1) <= 0) {
      engine.containers.set(hidden.container.Id, hidden.container);
      hidden = undefined;
    }
    if (going && (going.looks -= 1) <= 0) {
      engine.containers.delete(going.id);
      going = undefined;
    }
    return [...engine.containers.values()].find(({ Id, Name }) => Id === idOrName || Name === idOrName);
  };
  const create = (name: string, Labels: Record<string, string>): [number, unknown] => {
    if (refusal !== undefined) return [400, { message: refusal }];
    const isTaken = hidden !== undefined || [...engine.containers.values()].some(({ Name }) => Name === name);
    if (isTaken) return [409, { message: `Conflict. The container name "/${name}" is already in use` }];
    const container = { Id: `id-${(made += 1)}`, Name: name, Labels, Status: 'created' };
    if (makesNext === undefined) {
      engine.containers.set(container.Id, container);
      return [201, { Id: container.Id }];
    }
    hidden = { container, looks: makesNext };
    makesNext = undefined;
    return [409, { message: `Conflict. The container name "/${name}" is already in use` }];
  };
  const remove = (id: string): [number, unknown] => {
    if (removesNext !== undefined) {
      going = { id, looks: removesNext };
      removesNext = undefined;
      return [409, { message: `removal of container ${id} is already in progress` }];
    }
    return engine.containers.delete(id) ? [204, ''] : [404, { message: `No such container: ${id}` }];
  };
  const answer = (
    method: string,
    url: URL,
    body: { Name?: string; Labels?: Record<string, string> },
  ): [number, unknown] => {
    const [kind, name = '', verb] = url.pathname.slice(1).split('/').map(decodeURIComponent);
    const all = [...engine.containers.values()];
    if (kind === 'version') return [200, { Components: [{ Name: 'Engine' }] }];
    if (kind === 'images') return [200, {}];
    if (kind === 'networks') return name === 'inner' ? [200, { Internal: engine.isInternal }] : [404, {}];
    if (kind === 'volumes' && method === 'GET') return [200, { Volumes: [...volumes.values()] }];
    if (kind === 'volumes' && method === 'DELETE') return volumes.delete(name) ? [204, ''] : [404, {}];
    if (kind === 'volumes') {
      const volume = volumes.get(body.Name!) ?? { Name: body.Name!, Labels: body.Labels ?? {} };
      volumes.set(volume.Name, volume);
      return [201, volume];
    }
    if (name === 'json') return [200, all.map(({ Id, Labels, Status }) => ({ Id, Labels, State: Status }))];
    if (name === 'create') return create(url.searchParams.get('name')!, body.Labels ?? {});
    if (method === 'DELETE') return remove(name);
    const container = see(name);
    if (!container) return [404, { message: `No such container: ${name}` }];
    if (verb === 'start') container.Status = 'running';
    if (verb === 'stop') container.Status = 'exited';
    if (verb !== 'json') return [204, ''];
    const { Id, Labels, Status } = container;
    const State = { Status, Running: Status === 'running', StartedAt: new Date().toISOString() };
    return [200, { Id, Name: `/${container.Name}`, Config: { Labels }, State, HostConfig: {} }];
  };

  const server = http.createServer((request, response) => {
    let text = '';
    request.on('data', (piece: Buffer) => (text += piece.toString()));
    request.on('end', () => {
      const body = (text ? JSON.parse(text) : {}) as { Name?: string; Labels?: Record<string, string> };
      const [status, said] = answer(request.method!, new URL(request.url!, 'http://engine'), body);
      response.writeHead(status, { 'content-type': 'application/json' }).end(said === '' ? '' : JSON.stringify(said));
    });
  });
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  const engine: EngineLikeDocker = {
    socketPath,
    containers: new Map(),
    isInternal: false,
    anotherMakesTheNext: (looks) => (makesNext = looks),
    anotherRemovesTheNext: (looks) => (removesNext = looks),
    refuse: (message) => (refusal = message),
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      rmSync(dir, { recursive: true, force: true });
    },
  };
  return engine;
}
