/** What a container engine is asked for to run an instance of a cell: its command, its rights, its files, its limits. */
import { dirname } from 'node:path';
import type Docker from 'dockerode';
import type { BlueprintDocument } from '../blueprints/schema';
import { filledCommand } from './command-words';
import type { CellRecordOfEngine } from './docker-records';
import { identityFilesIn, type IdentityFiles } from './identity/identity-files';

export interface InstanceOfEngine {
  instance: string;
  port: number;
  /** `host`, or a network of the engine. */
  network: string;
  identity: IdentityFiles | undefined;
  /** The engine is Podman. */
  isPodman: boolean;
}

/** Where an instance finds the files of its identity, which it can only read. */
const identityFolder = '/run/understudy-identity';
/** A folder of the instance alone, in memory. */
const ownFolder = '/run/understudy';
/** Said because Docker lets nothing be run from such a folder, unless asked, and Podman does: some programs unpack libraries there. */
const inMemory = 'size=64m,mode=1777,exec';
const emptyAndClosed = 'ro,size=4k,mode=000';
/** To a read-only image Podman adds these, writable, unless they are asked for. They then hold what the image has there. */
const addedByPodman = ['/run', '/tmp', '/var/tmp'];
const isOther = (folder: string) => folder !== '{dir}';
const processLimit = 512;

/** All but the container's name and labels. */
export function containerOf(
  { cell, service, blueprint }: Pick<CellRecordOfEngine, 'cell' | 'service' | 'blueprint'>,
  { instance, port, network: networkMode, identity, isPodman }: InstanceOfEngine,
): Docker.ContainerCreateOptions {
  const { image, network, security, resources } = blueprint;
  const isOnHost = networkMode === 'host';
  const address = isOnHost ? network.address : '0.0.0.0';
  const placement = { cell, service, instance, address, port, dir: ownFolder };
  const seen = identity && identityFilesIn(identityFolder);
  const { command, environment } = filledCommand(blueprint, { ...placement, identity: seen });
  const published = `${port}/tcp`;
  const { files } = security;
  return {
    Image: image.os,
    Entrypoint: [],
    Cmd: command,
    Env: Object.entries(environment).map(([key, value]) => `${key}=${value}`),
    ...(image.workingDirectory !== undefined && { WorkingDir: image.workingDirectory }),
    ...(security.user !== undefined && { User: security.user }),
    ...(!isOnHost && { ExposedPorts: { [published]: {} } }),
    HostConfig: {
      NetworkMode: networkMode,
      ...(!isOnHost && { PortBindings: { [published]: [{ HostIp: network.address, HostPort: String(port) }] } }),
      // No more rights than a plain process of its user has, and none to be won.
      CapDrop: ['ALL'],
      SecurityOpt: ['no-new-privileges'],
      ...(identity && { Binds: [`${dirname(identity.privateKeyFile)}:${identityFolder}:ro`] }),
      Tmpfs: foldersInMemory(files, isPodman),
      ...(files && { ReadonlyRootfs: true }),
      RestartPolicy: { Name: 'no' },
      ...(resources.enforce && {
        Memory: resources.memoryLimitMib * 1024 * 1024,
        PidsLimit: processLimit,
        ...(resources.cpu !== undefined && { NanoCpus: Math.round(resources.cpu * 1e9) }),
      }),
    },
  };
}

function foldersInMemory(files: BlueprintDocument['security']['files'], isPodman: boolean): Record<string, string> {
  // Podman would copy into each what the image has there, and start nothing where that is too much.
  const empty = isPodman ? ',notmpcopyup' : '';
  const all = (folders: readonly string[], options: string) =>
    Object.fromEntries(folders.map((folder) => [folder, options]));
  return {
    ...all([ownFolder], inMemory + empty),
    ...all(files && isPodman ? addedByPodman : [], 'ro'),
    ...all(files?.hidden ?? [], emptyAndClosed + empty),
    ...all((files?.writable ?? []).filter(isOther), inMemory + empty),
  };
}
