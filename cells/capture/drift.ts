/** What a running process does that its blueprint does not say, or the other way round. Pure. */
import { basename } from 'node:path';
import type { BlueprintDocument } from '../../blueprints/schema';
import { egressAllows } from '../egress';
import { identityVariables } from '../identity/identity-files';
import { filesOverDemanded } from '../protection/compare-files';
import type { CapturedProcess } from './captured';
import { isSessionVariable } from './session-variables';

export interface Drift {
  /** Within the blueprint. */
  path: string;
  /** What a synthetic cell made from the blueprint would get wrong. */
  matters: 'function' | 'protection' | 'capacity';
  /** One sentence; never the value of a variable or a secret. */
  text: string;
}

const mib = 1_048_576;
const mostToldApart = 3;

/** `addressesOf`: the addresses of a host's name, so that an open connection can be compared with `egress`. */
export function driftOf(
  captured: CapturedProcess,
  blueprint: BlueprintDocument,
  addressesOf: (host: string) => readonly string[] = () => [],
): Drift[] {
  return [
    ...commandDrift(captured, blueprint),
    ...environmentDrift(captured, blueprint),
    ...dependencyDrift(captured, blueprint),
    ...networkDrift(captured, blueprint, addressesOf),
    ...securityDrift(captured, blueprint),
    ...resourceDrift(captured, blueprint),
  ];
}

function commandDrift({ command, workingDirectory }: CapturedProcess, { image }: BlueprintDocument): Drift[] {
  const drifts: Drift[] = [];
  if (command.length > 0) {
    // A script is run by the interpreter that its first line names: that stands before it.
    const isOne = (offset: number) =>
      command.length - offset === image.command.length &&
      image.command.every((word, index) => fits(word, command[index + offset]!, index === 0));
    if (!isOne(0) && !isOne(1) && !isOne(2)) {
      const at = image.command.findIndex((word, index) => !fits(word, command[index] ?? '', index === 0));
      const where =
        at >= 0 ? `argument ${at}` : `its ${command.length} words, the blueprint has ${image.command.length}`;
      drifts.push({ path: 'image.command', matters: 'function', text: `the command differs in ${where}` });
    }
  }
  if (image.workingDirectory !== undefined && image.workingDirectory !== workingDirectory)
    drifts.push({
      path: 'image.workingDirectory',
      matters: 'function',
      text: `it runs in ${workingDirectory}, the blueprint says ${image.workingDirectory}`,
    });
  return drifts;
}

/** Whether the text can come from the template, its words in braces filled. */
function fits(template: string, text: string, isProgram = false): boolean {
  const pattern = template
    .split(/\{[A-Za-z]+(?::[a-z0-9-]+)?\}/)
    .map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
    .join('.*');
  const matches = (value: string) => new RegExp(`^${pattern}$`, 's').test(value);
  return matches(text) || (isProgram && basename(template) === basename(text));
}

function environmentDrift({ environment, unseen }: CapturedProcess, { image, security }: BlueprintDocument): Drift[] {
  if (unseen.some((what) => what.startsWith('environment'))) return [];
  const drifts: Drift[] = [];
  const add = (name: string, text: string) =>
    drifts.push({ path: `image.environment.${name}`, matters: 'function', text });
  for (const [name, template] of Object.entries(image.environment)) {
    const value = environment[name];
    if (value === undefined) add(name, `${name} is not set, the blueprint sets it`);
    else if (!fits(template, value)) add(name, `${name} has another value than the blueprint gives it`);
  }
  const ofIdentity = new Set<string>(security.identity ? Object.values(identityVariables) : []);
  const isUnknown = (name: string) => !(name in image.environment) && !isSessionVariable(name) && !ofIdentity.has(name);
  const unknown = Object.keys(environment).filter(isUnknown);
  // What a service inherits from a rich shell would hide all the rest.
  if (unknown.length > mostToldApart) {
    const text = `${unknown.length} variables are set that the blueprint does not set: ${unknown.join(', ')}`;
    drifts.push({ path: 'image.environment', matters: 'function', text });
  } else for (const name of unknown) add(name, `${name} is set, the blueprint does not set it`);
  return drifts;
}

function dependencyDrift({ dependencies: found }: CapturedProcess, { dependencies }: BlueprintDocument): Drift[] {
  return dependencies.flatMap(({ name, version }): Drift[] => {
    const running = found.find((one) => one.name === name)?.version;
    // What could not be told has not drifted.
    if (running === undefined || running === version || running.startsWith(`${version}.`)) return [];
    const text = `${name} is ${running}, the blueprint says ${version}`;
    return [{ path: 'dependencies', matters: 'function', text }];
  });
}

function networkDrift(
  { calls, protection }: CapturedProcess,
  { network }: BlueprintDocument,
  addressesOf: (host: string) => readonly string[],
): Drift[] {
  const isAllowed = egressAllows(network.egress, addressesOf);
  const drifts: Drift[] = calls
    .filter((call) => !isAllowed(call))
    .map(({ address, port }) => ({
      path: 'network.egress',
      matters: 'protection',
      text: `it calls ${address}:${port}, which egress does not name`,
    }));
  const { listens } = protection;
  const isThere = ({ address }: { address: string }) => [network.address, '0.0.0.0', '::'].includes(address);
  if (listens.length > 0 && !listens.some(isThere))
    drifts.push({
      path: 'network.address',
      matters: 'function',
      text: `it listens on ${listens[0]!.address}, the blueprint says ${network.address}`,
    });
  return drifts;
}

function securityDrift({ user, protection }: CapturedProcess, { security }: BlueprintDocument): Drift[] {
  const drifts: Drift[] = [];
  const add = (path: string, text: string) => drifts.push({ path, matters: 'protection', text });
  const runsAs = user ?? `number ${protection.uid}`;
  if (security.user !== undefined && security.user !== 'allocate' && security.user !== runsAs)
    add('security.user', `it runs as user ${runsAs}, the blueprint says ${security.user}`);
  const more = security.capabilities && protection.capabilities.filter((one) => !security.capabilities!.includes(one));
  if (more && more.length > 0)
    add('security.capabilities', `it holds ${more.length} capabilities that the blueprint does not allow`);
  if (security.noNewPrivileges !== undefined && security.noNewPrivileges !== protection.noNewPrivileges)
    add('security.noNewPrivileges', `no_new_privs is ${protection.noNewPrivileges}, the blueprint says otherwise`);
  if (security.files)
    for (const { text } of filesOverDemanded(protection, security.files)) add('security.files', `it ${text}`);
  for (const secret of protection.clearSecrets) add('security.secrets', `a secret stands in clear: ${secret}`);
  return drifts;
}

function resourceDrift(
  { residentBytes, coresUsed, protection }: CapturedProcess,
  { resources }: BlueprintDocument,
): Drift[] {
  const drifts: Drift[] = [];
  const add = (path: string, text: string) => drifts.push({ path, matters: 'capacity', text });
  const usedMib = Math.ceil(residentBytes / mib);
  const limit = protection.limits.memoryBytes;
  if (usedMib > 2 * resources.memoryLimitMib)
    add(
      'resources.memoryLimitMib',
      `it uses ${usedMib} MiB, the blueprint limits an instance to ${resources.memoryLimitMib}`,
    );
  else if (limit !== undefined && limit < resources.memoryLimitMib * mib)
    add(
      'resources.memoryLimitMib',
      `it is held to ${Math.floor(limit / mib)} MiB, the blueprint says ${resources.memoryLimitMib}`,
    );
  if (resources.cpu !== undefined && coresUsed > resources.cpu)
    add(
      'resources.cpu',
      `it used ${coresUsed.toFixed(2)} cores on average, the blueprint limits an instance to ${resources.cpu}`,
    );
  return drifts;
}
