/** A real container engine for tests and benchmarks, with an image for them: the one that DOCKER_HOST names, else a Podman. */
import type Docker from 'dockerode';
import { userInfo } from 'node:os';
import { startPodman, whyNoPodman } from './podman-engine';
import { useRunningEngine, whyNotThisEngine } from './running-engine';

export interface ContainerEngine {
  socketPath: string;
  image: string;
  docker: Docker;
  /** Which engine it is, and how it was made to work here. */
  how: string;
  /** Leaves nothing of the tests behind. */
  close(): Promise<void>;
}

/** Why there can be no engine here; undefined if one may be used. */
export async function whyNoEngine(): Promise<string | undefined> {
  if (process.platform !== 'linux') return 'containers are tried on Linux only';
  if (userInfo().uid !== 0) return 'only root can start a Podman for this alone, and see what runs in containers';
  const host = process.env['DOCKER_HOST'];
  return host ? whyNotThisEngine(host) : whyNoPodman();
}

/** `programs`: files or folders, at the same place in the image. */
export async function startEngine(programs: readonly string[]): Promise<ContainerEngine> {
  const host = process.env['DOCKER_HOST'];
  return host ? useRunningEngine(host, programs) : startPodman(programs);
}
