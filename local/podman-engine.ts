/** A Podman for tests and benchmarks alone, in a folder of its own. */
import Docker from 'dockerode';
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { archiveOf, image } from './cell-image';
import type { ContainerEngine } from './container-engine';
import { waitUntil } from './wait';

const run = promisify(execFile);

/** Without a request for as long it ends by itself, should who started it be killed. */
const endsAfterS = 300;

/** Which programs and settings may work depends on what the machine lets a container do: tried in this order. */
const ways = [
  { runtime: 'runc', cgroups: 'enabled' },
  { runtime: 'crun', cgroups: 'enabled' },
  { runtime: 'crun', cgroups: 'disabled' },
];

export async function whyNoPodman(): Promise<string | undefined> {
  return run('podman', ['--version']).then(
    () => undefined,
    () => 'there is no podman (Debian and Ubuntu: apt-get install podman runc)',
  );
}

export async function startPodman(programs: readonly string[]): Promise<ContainerEngine> {
  const dir = await fs.mkdtemp(join(tmpdir(), 'understudy-engine-'));
  const socketPath = join(dir, 'engine.sock');
  const environment: NodeJS.ProcessEnv = {
    ...process.env,
    CONTAINERS_CONF: join(dir, 'containers.conf'),
    CONTAINERS_STORAGE_CONF: join(dir, 'storage.conf'),
    TMPDIR: dir,
  };
  let service: ChildProcess | undefined;
  const close = async () => {
    await run('podman', ['rm', '--all', '--force', '--time', '0'], { env: environment }).catch(() => undefined);
    service?.kill();
    const hasEnded = () => service?.exitCode !== null || service.signalCode !== null;
    if (service) await waitUntil(hasEnded, { withinMs: 20_000, what: 'Podman ends' });
    await letGo(dir);
  };
  try {
    await importImage(dir, environment, programs);
    const how = await findWay(dir, environment);
    const log = await fs.open(join(dir, 'service.log'), 'w');
    service = spawn('podman', ['system', 'service', `--time=${endsAfterS}`, `unix://${socketPath}`], {
      env: environment,
      stdio: ['ignore', log.fd, log.fd],
    });
    await log.close();
    const docker = new Docker({ socketPath });
    await waitUntil(() => docker.ping().then(Boolean), { withinMs: 30_000, what: 'Podman answers' });
    return { socketPath, image, docker, how: `Podman, ${how}`, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The first way in which a container really runs. */
async function findWay(dir: string, environment: NodeJS.ProcessEnv): Promise<string> {
  const failures: string[] = [];
  for (const way of ways) {
    await configure(dir, way);
    try {
      await run('podman', ['run', '--rm', '--network=host', image, process.execPath, '--version'], {
        env: environment,
        timeout: 60_000,
      });
      return `${way.runtime}, control groups ${way.cgroups}`;
    } catch (error) {
      failures.push(`${way.runtime}, control groups ${way.cgroups}: ${(error as { stderr?: string }).stderr?.trim()}`);
    }
  }
  throw new Error(`Podman runs no container here:\n${failures.join('\n')}`);
}

async function configure(dir: string, { runtime, cgroups }: (typeof ways)[number]): Promise<void> {
  const limits = readFileSync('/proc/self/limits', 'utf8');
  const hard = (name: string) => Number(new RegExp(`^${name}\\s+\\S+\\s+(\\d+)`, 'm').exec(limits)?.[1] ?? 1_048_576);
  // Podman's own defaults are above what a machine may allow, which then refuses every container.
  const files = Math.min(hard('Max open files'), 65_536);
  const processes = Math.min(Math.floor(hard('Max processes') / 3), 32_768);
  await fs.writeFile(
    join(dir, 'containers.conf'),
    `[containers]
cgroups = "${cgroups}"
default_ulimits = ["nofile=${files}:${files}", "nproc=${processes}:${processes}"]
log_driver = "k8s-file"
[engine]
runtime = "${runtime}"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "${join(dir, 'tmp')}"
`,
  );
}

async function importImage(dir: string, environment: NodeJS.ProcessEnv, programs: readonly string[]): Promise<void> {
  await fs.writeFile(
    join(dir, 'storage.conf'),
    `[storage]
driver = "overlay"
graphroot = "${join(dir, 'storage')}"
runroot = "${join(dir, 'run')}"
`,
  );
  await configure(dir, ways[0]!);
  const archive = await archiveOf(programs, dir);
  const importing = (driver: string) =>
    run('podman', ['--storage-driver', driver, 'import', archive, image], { env: environment, timeout: 120_000 });
  await importing('overlay').catch(async () => {
    // Where nothing can be mounted over itself: slower, and works everywhere.
    const storage = await fs.readFile(join(dir, 'storage.conf'), 'utf8');
    await fs.writeFile(join(dir, 'storage.conf'), storage.replace('"overlay"', '"vfs"'));
    await importing('vfs');
  });
  await fs.rm(archive);
}

/** Unmounts what the engine left mounted, and removes its empty control groups and its folder. */
async function letGo(dir: string): Promise<void> {
  for (const root of ['.', ...(await fs.readdir('/sys/fs/cgroup').catch(() => [] as string[]))])
    for (const group of ['libpod_parent/conmon', 'libpod_parent'])
      // Refused while another engine has something running in it.
      await fs.rmdir(join('/sys/fs/cgroup', root, group)).catch(() => undefined);
  const mounts = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((path) => path.startsWith(`${dir}/`))
    .reverse();
  for (const path of mounts) await run('umount', ['-l', path]).catch(() => undefined);
  for (let attempt = 1; ; attempt += 1) {
    try {
      await fs.rm(dir, { recursive: true, force: true });
      return;
    } catch (error) {
      // What ends last may still write there.
      if (attempt === 10) throw error;
      await sleep(100);
    }
  }
}
