/** What processes have used, as Linux tells it. */
import { readFileSync } from 'node:fs';

/** Clock ticks per second in /proc/PID/stat: the same on every Linux that Node runs on. */
const ticksPerSecond = 100;

/** User and system time of the processes, all threads, in milliseconds; to 10 ms. */
export function cpuMsOf(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name in the second field may have spaces; behind it, utime and stime are the fields 12 and 13.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return sum + ((Number(fields[11]) + Number(fields[12])) * 1000) / ticksPerSecond;
  }, 0);
}

/** Memory of the processes that is in use now, in KiB. */
export function rssKibOf(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => {
    const found = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return sum + Number(found?.[1] ?? 0);
  }, 0);
}
