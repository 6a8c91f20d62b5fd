/** An engine that runs already, Docker's own or another, lent to tests and benchmarks: what they put there they take away again. */
import Docker from 'dockerode';
import fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { archiveOf, image } from './cell-image';
import type { ContainerEngine } from './container-engine';

const scheme = 'unix://';

/** Why the engine at `host` (as in DOCKER_HOST) will not do; undefined if it will. */
export async function whyNotThisEngine(host: string): Promise<string | undefined> {
  if (!host.startsWith(scheme))
    return `DOCKER_HOST is ${host}, and what runs in containers is looked up on this machine: it must be ${scheme}...`;
  return engineAt(host)
    .ping()
    .then(
      () => undefined,
      (error: Error) => `no engine answers at DOCKER_HOST, ${host}: ${error.message}`,
    );
}

export async function useRunningEngine(host: string, programs: readonly string[]): Promise<ContainerEngine> {
  const docker = engineAt(host);
  const { Components, Version } = await docker.version();
  const close = async () => {
    const left = await docker.listContainers({ all: true, filters: { ancestor: [image] } });
    for (const { Id } of left) await docker.getContainer(Id).remove({ force: true, v: true });
    await docker.getImage(image).remove({ force: true });
  };
  const dir = await fs.mkdtemp(join(tmpdir(), 'understudy-image-'));
  try {
    const [repo, tag] = image.split(/:(?=[^:]*$)/);
    const answer = await docker.importImage(await archiveOf(programs, dir), { repo, tag });
    // The image is there once all of the answer is.
    await finished(answer.resume());
    await docker.getImage(image).inspect();
  } finally {
    await fs.rm(dir, { recursive: true, force: true });
  }
  const name = Components?.[0]?.Name.replace(/^Engine$/, 'Docker Engine') ?? 'an engine';
  return { socketPath: socketOf(host), image, docker, how: `${name} ${Version} at ${host}`, close };
}

function engineAt(host: string): Docker {
  return new Docker({ socketPath: socketOf(host) });
}

function socketOf(host: string): string {
  return host.slice(scheme.length);
}
