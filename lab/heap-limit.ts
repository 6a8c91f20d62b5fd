/** The heap size at which this process's V8 gives up. */
import { getHeapStatistics } from 'node:v8';

/**
 * The limit in bytes. `heap_size_limit` would add the young generation (48 MiB by default), which a leak can never fill:
 * a 64 MiB heap would die at 57 % of it.
 */
export function heapLimitBytes(execArgv = process.execArgv): number {
  const flag = execArgv.findLast((argument) => /^--max[-_]old[-_]space[-_]size=\d+$/.test(argument));
  return flag ? Number(flag.slice(flag.indexOf('=') + 1)) * 1024 * 1024 : getHeapStatistics().heap_size_limit;
}
