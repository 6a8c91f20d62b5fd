/** Which process a pid means, whether it or its group still lives, and whether it is the one that listens on a port. */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';

export interface ProcessIdentity {
  pid: number;
  /** Tells the process apart from a later one of its number: field 22 of /proc/PID/stat, or what `ps` says. */
  start: string;
}

const hasProc = existsSync('/proc/self/stat');

interface Stat {
  state: string;
  group: number;
  start: string;
}

function statOf(pid: number): Stat | undefined {
  try {
    if (!hasProc) {
      const ps = execFileSync('ps', ['-o', 'stat=,pgid=,lstart=', '-p', String(pid)], { encoding: 'utf8' }).trim();
      const [state, group, ...start] = ps.split(/\s+/);
      return state && group ? { state: state[0]!, group: Number(group), start: start.join(' ') } : undefined;
    }
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field, the command in brackets, may itself hold spaces and brackets: count from its end.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return { state: fields[0]!, group: Number(fields[2]), start: fields[19]! };
  } catch {
    return undefined;
  }
}

/** True while this very process lives. A zombie, waiting for a parent that may never ask, counts as dead. */
export function isAlive({ pid, start }: ProcessIdentity): boolean {
  const stat = statOf(pid);
  return stat !== undefined && stat.start === start && stat.state !== 'Z' && stat.state !== 'X';
}

/** True if a signal has stopped the process. */
export function isStopped({ pid, start }: ProcessIdentity): boolean {
  const stat = statOf(pid);
  return stat !== undefined && stat.start === start && stat.state === 'T';
}

/** Private memory that each process may have by setrlimit, in bytes; undefined without a limit or without /proc. */
export function dataLimitOf(pid: number): number | undefined {
  try {
    const soft = /^Max data size\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'utf8'))?.[1];
    return soft === undefined ? undefined : Number(soft);
  } catch {
    return undefined;
  }
}

/** True while the process or any other of the group it led lives. */
export function isGroupAlive(leader: ProcessIdentity): boolean {
  const stat = statOf(leader.pid);
  // A number that still names a group is not given to a new process, so a stranger means that the group has gone.
  if (stat && stat.start !== leader.start) return false;
  if (isAlive(leader)) return true;
  try {
    process.kill(-leader.pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
  }
  return groupMembers(leader.pid).length > 0;
}

/** Sends the signal to the process and its group, if any of it still lives. */
export function signalGroup(leader: ProcessIdentity, signal: NodeJS.Signals): void {
  if (!isGroupAlive(leader)) return;
  try {
    process.kill(-leader.pid, signal);
  } catch (error) {
    // It ended between the look and the signal. Anything else (EPERM) the caller has to know.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

function groupMembers(group: number): number[] {
  if (!hasProc) return [];
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .filter((pid) => {
      const stat = statOf(pid);
      return stat?.group === group && stat.state !== 'Z' && stat.state !== 'X';
    });
}

/**
 * Whether the group of this process listens on the TCP port; another server there would answer in its name. Undefined
 * where that cannot be told (no /proc, or the process belongs to another user).
 */
export function listensOn(leader: number, port: number): boolean | undefined {
  const sockets = listeningSockets(port);
  if (!sockets) return undefined;
  let isHidden = false;
  for (const pid of [leader, ...groupMembers(leader).filter((member) => member !== leader)]) {
    try {
      for (const fd of readdirSync(`/proc/${pid}/fd`)) {
        const socket = /^socket:\[(\d+)\]$/.exec(linkOf(`/proc/${pid}/fd/${fd}`));
        if (socket && sockets.has(socket[1]!)) return true;
      }
    } catch {
      isHidden = isHidden || statOf(pid) !== undefined;
    }
  }
  return isHidden ? undefined : false;
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}

/** Inodes of the sockets that listen on the port, from the kernel's tables (state 0A is LISTEN). */
function listeningSockets(port: number): Set<string> | undefined {
  if (!hasProc) return undefined;
  const hexPort = port.toString(16).toUpperCase().padStart(4, '0');
  const inodes = new Set<string>();
  for (const table of ['/proc/net/tcp', '/proc/net/tcp6']) {
    if (!existsSync(table)) continue;
    for (const line of readFileSync(table, 'utf8').split('\n').slice(1)) {
      const fields = line.trim().split(/\s+/);
      if (fields[3] === '0A' && fields[1]?.endsWith(`:${hexPort}`)) inodes.add(fields[9]!);
    }
  }
  return inodes;
}
