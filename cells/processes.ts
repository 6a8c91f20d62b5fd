/** Which process a pid means, and whether it or its group still lives. */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';

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

/** Whether any process has this number now. */
export function isThere(pid: number): boolean {
  return statOf(pid) !== undefined;
}

export function groupMembers(group: number): number[] {
  if (!hasProc) return [];
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .filter((pid) => {
      const stat = statOf(pid);
      return stat?.group === group && stat.state !== 'Z' && stat.state !== 'X';
    });
}
