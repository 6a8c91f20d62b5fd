/** What a container engine cannot run, said before anything is made. */
import type Docker from 'dockerode';
import { RefusedError } from '../blueprints/records';
import type { DockerContainers, EngineError } from './docker-containers';
import { isFree } from './ports';
import type { CellSpec } from './provider';
import { noIdentitySettings } from './readiness';

/** `network`: `host`, or one of the engine. Rejects with RefusedError where a person has to change something first. */
export async function refuseWhatCannotBe(
  { blueprint, identity }: CellSpec,
  engine: Docker,
  containers: DockerContainers,
  network: string,
): Promise<void> {
  const { name, image, security } = blueprint;
  if (security.identity && !identity) throw new RefusedError(noIdentitySettings(name));
  if (identity && !/^(\d+(:\d+)?)?$/.test(security.user ?? ''))
    throw new RefusedError(
      `blueprint ${name}: security.user: must be a number, such as 1000, for a container that has an identity: its key is that user's alone`,
    );
  const { address } = blueprint.network;
  if (!(await isFree(address, 0)))
    throw new RefusedError(`blueprint ${name}: network.address: nothing can listen on ${address}`);
  await engine
    .getImage(image.os)
    .inspect()
    .catch((error: EngineError) => {
      if (error.statusCode !== 404)
        throw new Error(`the container engine does not answer as it should: ${error.message}`, { cause: error });
      throw new RefusedError(
        `blueprint ${name}: image.os: the engine has no image ${image.os}; pull or build it first`,
      );
    });
  // Podman has ways to connect a container that are no networks of its own, and says itself what it lacks.
  if (network !== 'host' && !(await containers.isPodman())) await refuseNetwork(engine, network);
}

async function refuseNetwork(engine: Docker, network: string): Promise<void> {
  const inspected = engine.getNetwork(network).inspect();
  const { Internal } = await inspected.catch((error: EngineError) => {
    if (error.statusCode !== 404) throw error as Error;
    throw new RefusedError(`dockerProvider.network: the engine has no network ${network}; create it first`);
  });
  // A cell that nobody can ask would never get ready.
  if (Internal)
    throw new RefusedError(
      `dockerProvider.network: ${network} is internal, and Docker publishes no ports of such a network: name another`,
    );
}
