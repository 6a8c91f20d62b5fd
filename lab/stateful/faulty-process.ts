/** What can go wrong with a process of the lab and with its line: killed, paused with all it started, cut off, held up. */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ManagedProcess } from '../../local/process';
import { perfectNetwork, type TcpProxy } from '../chaos/tcp-proxy';
import type { FaultyCell } from './faulted-handover';

export function faultsOf(
  managed: ManagedProcess,
  line: Pick<TcpProxy, 'levels'>,
): Pick<FaultyCell, 'killFor' | 'pauseFor' | 'cutOffFor'> {
  return {
    async killFor(ms) {
      await managed.kill('SIGKILL');
      await sleep(ms);
      await managed.start();
    },
    async pauseFor(ms) {
      const paused: number[] = [];
      managed.signal('SIGSTOP');
      // Servers give their children groups of their own: they are paused one by one. A stopped parent makes no more.
      for (const pid of managed.pid === undefined ? [] : descendants(managed.pid))
        if (signal(pid, 'SIGSTOP')) paused.push(pid);
      await sleep(ms);
      for (const pid of paused) signal(pid, 'SIGCONT');
      managed.signal('SIGCONT');
    },
    async cutOffFor(ms, resets) {
      line.levels = resets ? { ...perfectNetwork, resetShare: 1 } : { ...perfectNetwork, stallShare: 1, stallMs: ms };
      await sleep(ms);
      line.levels = { ...perfectNetwork };
    },
  };
}

function signal(pid: number, name: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, name);
  } catch {
    return false;
  }
}

/** Parents before their children. */
function descendants(root: number): number[] {
  const children = new Map<number, number[]>();
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const stat = readFileSync(`/proc/${entry}/stat`, 'utf8');
      const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
      children.set(parent, [...(children.get(parent) ?? []), Number(entry)]);
    } catch {
      // It has ended.
    }
  }
  const found: number[] = [];
  for (const queue = [...(children.get(root) ?? [])]; queue.length > 0;) {
    const pid = queue.shift()!;
    found.push(pid);
    queue.push(...(children.get(pid) ?? []));
  }
  return found;
}
