/** Reads what is in force around a process of this machine, a container's included: from /proc and its control groups. */
import { lstatSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { secretArguments, whySecret } from '../../blueprints/clear-secrets';
import type { End } from '../egress';
import { isHeld } from '../egress-rules';
import { firstAllocatedUid } from '../run-as';
import { socketsOf } from '../sockets';
import type { ProtectionFacts, SecretFile } from './facts';
import { parseMounts } from './mounts';
import { parseCgroup, parseEnvironment, parseLimits, parseList, parseStatus, type TcpSocket } from './proc-files';

/** What is to be looked for beside what every process has. */
export interface LookedFor {
  /** Paths that the blueprint hides. */
  hidden: readonly string[];
  secrets: readonly { name: string; file: string }[];
}

/** Throws if there is no such process. What exists and must not be read is named under `unseen`. */
export async function readProtection(
  pid: number,
  instance: string,
  { hidden, secrets }: LookedFor = { hidden: [], secrets: [] },
): Promise<ProtectionFacts> {
  const unseen: string[] = [];
  const seen = <T>(what: string, fallback: T, read: () => T): T => {
    try {
      return read();
    } catch (error) {
      unseen.push(`${what} (${(error as NodeJS.ErrnoException).code ?? (error as Error).message})`);
      return fallback;
    }
  };
  const status = parseStatus(readFileSync(`/proc/${pid}/status`, 'utf8'));
  const { uid, gid, groups, capabilities, noNewPrivileges, seccomp } = status;
  const isEgressHeld =
    uid >= firstAllocatedUid &&
    (await isHeld(uid).catch((error: Error) => {
      unseen.push(`packet filter (${error.message})`);
      return false;
    }));
  const sockets = await socketsOf(pid).catch((error: NodeJS.ErrnoException) => {
    unseen.push(`sockets (${error.code ?? error.message})`);
    return [];
  });
  return {
    instance,
    uid,
    gid,
    groups,
    capabilities,
    noNewPrivileges,
    seccomp,
    limits: seen('limits', {}, () => readLimits(pid)),
    confinedBy: seen('namespaces', [], () => namespacesOf(pid)),
    listens: sockets.filter(({ state }) => state === 'listening').map(({ local }) => local),
    clearSecrets: [
      ...seen('arguments', [], () => secretArguments(readCommand(pid)).map(({ name }) => `argument ${name}`)),
      ...seen('environment', [], () =>
        Object.entries(readEnvironment(pid)).flatMap(([name, value]) =>
          whySecret(name, value) === undefined ? [] : [`environment ${name}`],
        ),
      ),
    ],
    mounts: seen('mounts', [], () => parseMounts(readFileSync(`/proc/${pid}/mountinfo`, 'utf8'))),
    reachable: hidden.filter((path) => seen(path, false, () => isThere(pid, path))),
    secretFiles: secrets.flatMap(({ name, file }) => {
      return seen(`secret ${name}`, [], () => [secretFileOf(pid, name, file)]);
    }),
    calls: callsAmong(sockets),
    isEgressHeld,
    unseen,
  };
}

/** As the process would find it: a folder with nothing in it, an empty file and a device hide what is below. */
function isThere(pid: number, path: string): boolean {
  const seenByIt = `/proc/${pid}/root${path}`;
  try {
    const stat = lstatSync(seenByIt);
    if (stat.isDirectory()) return readdirSync(seenByIt).length > 0;
    return stat.isFile() ? stat.size > 0 : !stat.isCharacterDevice();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

function secretFileOf(pid: number, name: string, file: string): SecretFile {
  const { mode, uid, gid } = statSync(`/proc/${pid}/root${file}`);
  return { name, file, mode: mode & 0o777, uid, gid };
}

/** Connections that the process began itself, also to itself: what it listens on is called by others. */
function callsAmong(sockets: readonly TcpSocket[]): End[] {
  const own = new Set(sockets.filter(({ state }) => state === 'listening').map(({ local }) => local.port));
  const calls = sockets.filter(({ state, local }) => state === 'established' && !own.has(local.port));
  return [...new Map(calls.map(({ remote }) => [`${remote.address}:${remote.port}`, remote])).values()];
}

export const readCommand = (pid: number): string[] => parseList(readFileSync(`/proc/${pid}/cmdline`, 'utf8'));

export const readEnvironment = (pid: number): Record<string, string> =>
  parseEnvironment(readFileSync(`/proc/${pid}/environ`, 'utf8'));

function readLimits(pid: number): ProtectionFacts['limits'] {
  const own = parseLimits(readFileSync(`/proc/${pid}/limits`, 'utf8'));
  const groups = groupLimits(pid);
  const least = (...values: (number | undefined)[]) => {
    const known = values.filter((value) => value !== undefined);
    return known.length > 0 ? Math.min(...known) : undefined;
  };
  const limits: Record<keyof ProtectionFacts['limits'], number | undefined> = {
    memoryBytes: least(own.get('Max address space'), own.get('Max data size'), groups.memoryBytes),
    cpus: groups.cpus,
    processes: least(own.get('Max processes'), groups.processes),
    openFiles: own.get('Max open files'),
    coreBytes: own.get('Max core file size'),
    lockedBytes: own.get('Max locked memory'),
    realtimePriority: own.get('Max realtime priority'),
  };
  return Object.fromEntries(Object.entries(limits).filter(([, value]) => value !== undefined));
}

const groupRoot = '/sys/fs/cgroup';

/** The tightest limits of the process's control groups and of those above them. */
function groupLimits(pid: number): { memoryBytes?: number; cpus?: number; processes?: number } {
  const found: { memoryBytes?: number; cpus?: number; processes?: number } = {};
  const tighten = (name: keyof typeof found, value: number | undefined) => {
    if (value !== undefined && Number.isFinite(value)) found[name] = Math.min(found[name] ?? Infinity, value);
  };
  const groups = parseCgroup(readFileSync(`/proc/${pid}/cgroup`, 'utf8'));
  const whole = (text: string | undefined) => {
    // Version 1 says the largest number there is where nothing is limited.
    const value = text === undefined || text === 'max' ? undefined : Number(text);
    return value !== undefined && value > 0 && value < 2 ** 60 ? value : undefined;
  };
  for (const [controller, path] of groups) {
    const roots = controller === 'unified' ? [groupRoot, join(groupRoot, 'unified')] : [join(groupRoot, controller)];
    for (const root of roots)
      for (const folder of upTo(root, path)) {
        const read = (file: string) => readIfThere(join(folder, file));
        tighten('memoryBytes', whole(read('memory.max') ?? read('memory.limit_in_bytes')));
        tighten('processes', whole(read('pids.max')));
        const [quota, period] = (
          read('cpu.max') ?? `${read('cpu.cfs_quota_us') ?? 'max'} ${read('cpu.cfs_period_us')}`
        ).split(' ');
        tighten('cpus', quota === 'max' || Number(quota) <= 0 ? undefined : Number(quota) / Number(period));
      }
  }
  return found;
}

function upTo(root: string, path: string): string[] {
  const folders: string[] = [];
  for (let at = normalize(`/${path}`); ; at = dirname(at)) {
    folders.push(join(root, at));
    if (at === '/') return folders;
  }
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return undefined;
  }
}

function namespacesOf(pid: number): string[] {
  const differing = ['mnt', 'net', 'pid', 'user', 'ipc'].filter(
    (kind) => readlinkSync(`/proc/${pid}/ns/${kind}`) !== readlinkSync(`/proc/self/ns/${kind}`),
  );
  return readlinkSync(`/proc/${pid}/root`) === '/' ? differing : [...differing, 'root'];
}
