/** Whether a synthetic cell is as protected as its source and as its blueprint asks. Pure: facts in, differences out. */
import type { BlueprintDocument } from '../../blueprints/schema';
import { egressAllows } from '../egress';
import { filesOverDemanded, filesOverSource, type DemandedFiles } from './compare-files';
import { limitNames, limitWords, type LimitName, type ProtectionFacts } from './facts';

export interface Weakness {
  instance: string;
  /** What is weaker: `user`, `capabilities`, `limit openFiles`, ... */
  what: string;
  against: 'source' | 'blueprint';
  /** A sentence with both sides. */
  text: string;
}

/** What the blueprint states, in the terms of the facts. */
export interface DemandedProtection {
  /** The number of the user; undefined where none is stated, or each instance has its own. */
  uid?: number;
  /** A user of its own per instance, or by name: in either case not root. */
  notRoot: boolean;
  capabilities?: readonly string[];
  noNewPrivileges?: boolean;
  seccomp?: ProtectionFacts['seccomp'];
  limits: Partial<Record<LimitName, number>>;
  files?: DemandedFiles;
  /** Names of secrets whose files must be nobody else's. */
  secrets: readonly string[];
  /** What it may call; empty: nothing is stated. */
  egress: readonly string[];
}

export function demandedBy(
  { security, resources, network }: BlueprintDocument,
  uidOf: (user: string) => number | undefined,
): DemandedProtection {
  const { user, capabilities, noNewPrivileges, seccomp, files, secrets } = security;
  const uid = user === undefined ? undefined : uidOf(user);
  return {
    ...(uid !== undefined && { uid }),
    notRoot: user !== undefined && uid !== 0,
    ...(capabilities && { capabilities }),
    ...(noNewPrivileges !== undefined && { noNewPrivileges }),
    ...(seccomp && { seccomp }),
    limits: {
      ...(resources.processes !== undefined && { processes: resources.processes }),
      ...(resources.openFiles !== undefined && { openFiles: resources.openFiles }),
    },
    ...(files && { files }),
    secrets: secrets.map(({ name }) => name),
    egress: network.egress,
  };
}

/** Everything in which an instance of the synthetic cell is less protected than any of the source's. */
export function weakerThanSource(
  synthetic: readonly ProtectionFacts[],
  source: readonly ProtectionFacts[],
): Weakness[] {
  const found = new Map<string, Weakness>();
  for (const own of synthetic)
    for (const theirs of source)
      for (const { what, text } of [...differencesFrom(own, theirs)])
        // The same against every instance of the source: once is enough.
        found.set(`${own.instance} ${what}`, { instance: own.instance, what, against: 'source', text });
  return [...found.values()];
}

interface Difference {
  what: string;
  text: string;
}

function differencesFrom(own: ProtectionFacts, source: ProtectionFacts): Difference[] {
  return [...identity(own, source), ...rights(own, source), ...reach(own, source), ...filesOverSource(own, source)];
}

function identity(own: ProtectionFacts, source: ProtectionFacts): Difference[] {
  const differences: Difference[] = [];
  if (own.uid === 0 && source.uid !== 0)
    differences.push({ what: 'user', text: `runs as root, its source as user ${source.uid}` });
  if (own.gid === 0 && source.gid !== 0)
    differences.push({ what: 'group', text: `runs in group 0, its source in group ${source.gid}` });
  const more = own.groups.filter(
    (group) => group !== own.gid && group !== source.gid && !source.groups.includes(group),
  );
  if (more.length > 0)
    differences.push({ what: 'groups', text: `is also in group ${more.join(', ')}, its source is not` });
  return differences;
}

const strictness = { none: 0, filter: 1, strict: 2 } as const;

function rights(own: ProtectionFacts, source: ProtectionFacts): Difference[] {
  const differences: Difference[] = [];
  const more = own.capabilities.filter((capability) => !source.capabilities.includes(capability));
  if (more.length > 0) differences.push({ what: 'capabilities', text: `holds ${listed(more)}, its source does not` });
  if (source.noNewPrivileges && !own.noNewPrivileges)
    differences.push({ what: 'no_new_privs', text: 'can gain rights by setuid programs, its source cannot' });
  if (strictness[own.seccomp] < strictness[source.seccomp])
    differences.push({ what: 'seccomp', text: `has seccomp ${own.seccomp}, its source ${source.seccomp}` });
  for (const name of limitNames)
    differences.push(...limitOf(name, own.limits[name], source.limits[name], 'its source'));
  return differences;
}

function limitOf(name: LimitName, own: number | undefined, most: number | undefined, whose: string): Difference[] {
  if (most === undefined || (own !== undefined && own <= most)) return [];
  const said = (value: number | undefined) => (value === undefined ? 'no limit' : `a limit of ${value}`);
  return [{ what: `limit ${name}`, text: `has ${said(own)} on ${limitWords[name]}, ${whose} ${said(most)}` }];
}

function reach(own: ProtectionFacts, source: ProtectionFacts): Difference[] {
  const differences: Difference[] = [];
  const missing = source.confinedBy.filter((kind) => !own.confinedBy.includes(kind));
  if (missing.length > 0)
    differences.push({
      what: 'confinement',
      text: `shares ${missing.map((kind) => namespaceWords[kind] ?? kind).join(', ')} with the machine, its source does not`,
    });
  const open = exposed(own);
  const theirs = exposed(source);
  // A network of its own has other addresses; there it counts that nothing more is open.
  if (open.length > theirs.length)
    differences.push({
      what: 'listening addresses',
      text: `accepts connections from outside on ${open.join(', ')}, its source on ${theirs.join(', ') || 'none'}`,
    });
  if (source.isEgressHeld && !own.isEgressHeld)
    differences.push({ what: 'egress', text: 'can call whom it likes, its source is held to its egress' });
  const secrets = own.clearSecrets.filter((secret) => !source.clearSecrets.includes(secret));
  if (secrets.length > 0)
    differences.push({ what: 'secrets', text: `shows a secret in clear (${secrets.join(', ')}), its source does not` });
  // What the reader may not see of one and may see of the other has not been shown to be as good.
  const unseen = own.unseen.filter((what) => !source.unseen.includes(what));
  if (unseen.length > 0) differences.push({ what: 'unseen', text: `could not be read: ${unseen.join(', ')}` });
  return differences;
}

const namespaceWords: Record<string, string> = {
  mnt: 'file systems',
  net: 'network and egress',
  pid: 'processes',
  user: 'user numbers',
  ipc: 'shared memory',
  root: 'the root folder',
};

/** Where it can be reached from outside the machine. */
function exposed({ listens }: ProtectionFacts): string[] {
  const isLoopback = (address: string) => address === '::1' || address.startsWith('127.');
  return listens.filter(({ address }) => !isLoopback(address)).map(({ address, port }) => `${address}:${port}`);
}

/** Everything in which an instance falls short of what its blueprint states. */
export function weakerThanDemanded(
  synthetic: readonly ProtectionFacts[],
  demanded: DemandedProtection,
  addressesOf: (host: string) => readonly string[] = () => [],
): Weakness[] {
  return synthetic.flatMap((own) => {
    const differences: Difference[] = [];
    const add = (what: string, text: string) => differences.push({ what, text });
    if (demanded.uid !== undefined && own.uid !== demanded.uid)
      add('user', `runs as user ${own.uid}, the blueprint says ${demanded.uid}`);
    else if (demanded.notRoot && own.uid === 0) add('user', 'runs as root, the blueprint says another user');
    const more = demanded.capabilities && own.capabilities.filter((each) => !demanded.capabilities!.includes(each));
    if (more && more.length > 0) add('capabilities', `holds ${listed(more)}, the blueprint does not allow that`);
    if (demanded.noNewPrivileges === true && !own.noNewPrivileges)
      add('no_new_privs', 'can gain rights by setuid programs, the blueprint forbids it');
    if (demanded.seccomp && strictness[own.seccomp] < strictness[demanded.seccomp])
      add('seccomp', `has seccomp ${own.seccomp}, the blueprint demands ${demanded.seccomp}`);
    for (const name of limitNames)
      differences.push(...limitOf(name, own.limits[name], demanded.limits[name], 'the blueprint asks for'));
    differences.push(...filesOverDemanded(own, demanded.files));
    const calls = callsBeyond(own, demanded.egress, addressesOf);
    if (calls.length > 0) add('egress', `is connected to ${calls.join(', ')}, which egress does not name`);
    return differences.map(({ what, text }) => ({ instance: own.instance, what, against: 'blueprint' as const, text }));
  });
}

/** Connections of its own to what its blueprint does not name, if that names anything. */
export function callsBeyond(
  { calls }: ProtectionFacts,
  egress: readonly string[],
  addressesOf: (host: string) => readonly string[],
): string[] {
  const isAllowed = egressAllows(egress, addressesOf);
  return egress.length === 0
    ? []
    : calls.filter((call) => !isAllowed(call)).map(({ address, port }) => `${address}:${port}`);
}

/** Everything the blueprint states that only a read-back can show; empty if it states nothing. */
export function statedDemands(demanded: DemandedProtection): string[] {
  return [
    ...(demanded.uid !== undefined || demanded.notRoot ? ['user'] : []),
    ...(demanded.capabilities ? ['capabilities'] : []),
    ...(demanded.noNewPrivileges === true ? ['no_new_privs'] : []),
    ...(demanded.seccomp && demanded.seccomp !== 'none' ? ['seccomp'] : []),
    ...Object.keys(demanded.limits).map((name) => `limit ${name}`),
    ...(demanded.files ? ['files'] : []),
    ...demanded.secrets.map((name) => `secret ${name}`),
    ...(demanded.egress.length > 0 ? ['egress'] : []),
  ];
}

function listed(names: readonly string[]): string {
  return names.length > 6
    ? `${names.slice(0, 5).join(', ')} and ${names.length - 5} more capabilities`
    : names.join(', ');
}
