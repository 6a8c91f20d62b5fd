/** What can be seen of a running process that a blueprint would have to say. Reads this machine; decides nothing. */
import { execFile } from 'node:child_process';
import { existsSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { basename, dirname, isAbsolute, join } from 'node:path';
import { promisify } from 'node:util';
import type { ProtectionFacts } from '../protection/facts';
import { parseStatus } from '../protection/proc-files';
import { userOfUid } from '../protection/read-back';
import { readCommand, readEnvironment, readProtection } from '../protection/read-process';

export interface CapturedProcess {
  pid: number;
  command: string[];
  environment: Record<string, string>;
  workingDirectory: string;
  /** The account's name; undefined where the number has none. */
  user: string | undefined;
  protection: ProtectionFacts;
  residentBytes: number;
  /** Cores used on average since it began. */
  coresUsed: number;
  /** Open connections that it began itself. */
  calls: { address: string; port: number }[];
  dependencies: { name: string; version: string }[];
  /** What could not be seen, in words. */
  unseen: string[];
}

/**
 * Throws if there is no such process. Programs are asked for their version only with `askVersions`, and only where
 * nobody but root or this user could have written them.
 */
export async function captureProcess(
  pid: number,
  { askVersions = false }: { askVersions?: boolean } = {},
): Promise<CapturedProcess> {
  if (!existsSync('/proc/self/status'))
    throw new Error('This system has no /proc, so nothing can be seen of a process.');
  if (!existsSync(`/proc/${pid}/status`)) throw new Error(`There is no process ${pid}.`);
  const protection = await readProtection(pid, String(pid));
  const unseen = [...protection.unseen];
  const seen = <T>(what: string, fallback: T, read: () => T): T => {
    try {
      return read();
    } catch (error) {
      if (!unseen.some((text) => text.startsWith(what)))
        unseen.push(`${what} (${(error as NodeJS.ErrnoException).code})`);
      return fallback;
    }
  };
  const command = seen('arguments', [], () => readCommand(pid));
  const workingDirectory = seen('working directory', '/', () => readlinkSync(`/proc/${pid}/cwd`));
  const executable = seen('program file', '', () => readlinkSync(`/proc/${pid}/exe`));
  const status = parseStatus(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return {
    pid,
    command,
    environment: seen('environment', {}, () => readEnvironment(pid)),
    workingDirectory,
    user: userOfUid(status.uid),
    protection,
    residentBytes: status.residentBytes,
    coresUsed: seen('processor time', 0, () => coresUsed(pid)),
    calls: protection.calls,
    dependencies: [
      ...(askVersions ? await runtimeOf(executable) : []),
      ...seen('packages', [], () => nodePackages(executable, command, workingDirectory)),
    ],
    unseen,
  };
}

const ticksPerSecond = 100;

function coresUsed(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const usedS = (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
  const upS = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]);
  return usedS / Math.max(1, upS - Number(fields[19]) / ticksPerSecond);
}

/** Programs that tell their version and do nothing else when asked. */
const versionOptions: Record<string, string[]> = {
  node: ['--version'],
  python3: ['--version'],
  ruby: ['--version'],
  php: ['--version'],
  perl: ['--version'],
  java: ['-version'],
  nginx: ['-v'],
  envoy: ['--version'],
};

async function runtimeOf(executable: string): Promise<CapturedProcess['dependencies']> {
  const name = basename(executable).replace(/^python3\.\d+$/, 'python3');
  const options = versionOptions[name];
  if (!options || !isTrusted(executable)) return [];
  try {
    const { stdout, stderr } = await promisify(execFile)(executable, options, { timeout: 10_000, env: {} });
    const version = /\d+\.\d+(\.\d+)*/.exec(`${stdout}\n${stderr}`)?.[0];
    return version === undefined ? [] : [{ name, version }];
  } catch {
    return [];
  }
}

/** Nobody but root and this user may have written it: whoever runs a program gives it his rights. */
function isTrusted(file: string): boolean {
  try {
    const { uid, mode } = statSync(file);
    return (uid === 0 || uid === process.getuid?.()) && (mode & 0o022) === 0;
  } catch {
    return false;
  }
}

/** What the package.json nearest to the script names, in the versions that are installed. */
function nodePackages(executable: string, command: readonly string[], cwd: string): CapturedProcess['dependencies'] {
  if (basename(executable) !== 'node') return [];
  const script = command.slice(1).find((word) => !word.startsWith('-'));
  let folder = script === undefined ? cwd : dirname(isAbsolute(script) ? script : join(cwd, script));
  while (!existsSync(join(folder, 'package.json'))) {
    if (folder === dirname(folder)) return [];
    folder = dirname(folder);
  }
  const read = (file: string) => JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
  const wanted = Object.keys((read(join(folder, 'package.json'))['dependencies'] as object | undefined) ?? {});
  return wanted.flatMap((name) => {
    const installed = join(folder, 'node_modules', name, 'package.json');
    return existsSync(installed) ? [{ name, version: String(read(installed)['version']) }] : [];
  });
}
