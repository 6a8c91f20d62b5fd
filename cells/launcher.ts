/** Starts one process such that, whoever dies when, at most one ever runs for a claim and none runs without one. */
import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';

/*
 * Runs as its own session leader, writes who it is into a file of its own, and links that file to the claim: link fails
 * if the claim is taken or if its folder has been moved away, and makes it appear whole. Only then the command takes
 * over this very process, so pid and start time in the claim are the command's. Killed before the link: nothing runs.
 * Killed after it: the claim names a dead process, which the provider sees.
 */
const script = `
claim=$1 dir=$2 groups=$3 data=$4; shift 4
start_of() { shift 19; start=$1; }
if read -r stat < /proc/$$/stat; then start_of \${stat##*) }; else start=$(ps -o lstart= -p $$ | xargs); fi 2>/dev/null
echo "$$ $start" 2>/dev/null > "$claim.$$" || exit 0
ln "$claim.$$" "$claim" 2>/dev/null; won=$?
rm -f "$claim.$$"
[ $won -eq 0 ] || exit 0
printf %s "$$" > "$dir/pid"; printf %s "$start" > "$dir/start"
for group in $groups; do echo $$ > "$group/cgroup.procs" || exit 125; done
[ -z "$data" ] || ulimit -d "$data" || exit 125
exec "$@"
`;

export interface Launch {
  /** The file whose appearance makes the process this claim's only one. */
  claim: string;
  /** Where `pid` and `start` are written for people and tools. */
  directory: string;
  /** Both streams are appended to it. */
  logFile: string;
  command: readonly string[];
  workingDirectory: string;
  environment: Readonly<Record<string, string>>;
  /** Folders of control groups that the process enters before it becomes the command. No spaces in them. */
  groups?: readonly string[];
  /** KiB of private memory per process, by setrlimit. */
  dataLimitKib?: number;
}

/** Returns as soon as the launcher runs. The process outlives the caller. */
export async function launch({
  claim,
  directory,
  logFile,
  command,
  workingDirectory,
  environment,
  groups = [],
  dataLimitKib,
}: Launch): Promise<ChildProcess> {
  const log = openSync(logFile, 'a');
  try {
    const data = dataLimitKib === undefined ? '' : String(dataLimitKib);
    const args = ['-c', script, 'understudy-launcher', claim, directory, groups.join(' '), data, ...command];
    const child = spawn('/bin/sh', args, {
      cwd: workingDirectory,
      env: { ...environment },
      detached: true,
      stdio: ['ignore', log, log],
    });
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', reject);
    });
    child.unref();
    return child;
  } finally {
    closeSync(log);
  }
}
