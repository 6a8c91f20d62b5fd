/** Which process is meant by a pid, and which still live: the typed door to pid-lock.cjs, which the bootstrap shares. */
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { packageRoot } from '../package-root';

interface PidLock {
  takeLock: (file: string) => number | null;
  releaseLock: (file: string) => void;
  isAlive: (pid: number, startedAt: string | null) => boolean;
  startTime: (pid: number) => string | null;
}

const pidLock = createRequire(join(packageRoot, 'package.json'))('./local/pid-lock.cjs') as PidLock;

/** `takeLock(file)` answers null, or the pid of the live process that has the lock. */
export const { takeLock, releaseLock, isAlive, startTime } = pidLock;

/** A process that is told apart from a later one with the same number, where the system has /proc. */
export interface ProcessIdentity {
  pid: number;
  /** Clock ticks since boot, as /proc says; null elsewhere. */
  startedAt: string | null;
}

export function identify(pid: number): ProcessIdentity {
  return { pid, startedAt: startTime(pid) };
}

/** Whether the process, or another of the group that it leads, lives. A zombie counts as dead. */
export function isGroupAlive({ pid, startedAt }: ProcessIdentity): boolean {
  // A number stays taken while it names a group, so a stranger under this number means that the group is gone.
  const now = startTime(pid);
  if (startedAt !== null && now !== null && now !== startedAt) return false;
  try {
    process.kill(-pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
  return !isOnlyZombies(pid);
}

/** Sends a signal to the group that the process leads. Answers whether anyone could get it. */
export function signalGroup(identity: ProcessIdentity, signal: NodeJS.Signals): boolean {
  if (!isGroupAlive(identity)) return false;
  try {
    process.kill(-identity.pid, signal);
    return true;
  } catch {
    return false;
  }
}

/** Zombies whose parent does not wait for them (an init that does not reap, in a container) hold nothing. */
function isOnlyZombies(group: number): boolean {
  let found = false;
  for (const { state, group: theirs } of processes()) {
    if (theirs !== group) continue;
    if (state !== 'Z' && state !== 'X') return false;
    found = true;
  }
  return found;
}

interface ListedProcess {
  pid: number;
  state: string;
  group: number;
}

function* processes(): Generator<ListedProcess> {
  let entries: string[];
  try {
    entries = readdirSync('/proc');
  } catch {
    return;
  }
  for (const entry of entries) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const stat = readFileSync(`/proc/${entry}/stat`, 'utf8');
      const [state, , group] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      yield { pid: Number(entry), state: state ?? '?', group: Number(group) };
    } catch {
      // It ended while we looked.
    }
  }
}

/**
 * The groups of living processes whose environment has this entry; none where there is no /proc. A group whose leader lacks
 * the entry is somebody else's and left alone.
 */
export function groupsWithEnvironment(entry: string): number[] {
  const marked = [...processes()].filter(({ pid, state }) => state !== 'Z' && state !== 'X' && hasEntry(pid, entry));
  const leaders = new Set(marked.map(({ pid }) => pid));
  const groups = new Set(marked.map(({ group }) => group));
  return [...groups].filter((group) => leaders.has(group) || startTime(group) === null);
}

function hasEntry(pid: number, entry: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(entry);
  } catch {
    return false; // Not ours to read, or gone.
  }
}
