/**
 * A real container engine for tests: Podman, started for them alone in a folder of its own. It gets one image, put together
 * from this machine's Node.js and the tests' cell server, since no registry can be counted on.
 */
import Docker from 'dockerode';
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import fs from 'node:fs/promises';
import { tmpdir, userInfo } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { packageRoot } from '../../package-root';
import { until } from './cells';

const run = promisify(execFile);

export interface TestEngine {
  socketPath: string;
  image: string;
  docker: Docker;
  /** How it was made to work here. */
  how: string;
  close(): Promise<void>;
}

const image = 'localhost/understudy-test-cell:1';
/** Without a request for as long it ends by itself, should the tests be killed. */
const endsAfterS = 300;

/** Which programs and settings may work depends on what the machine lets a container do: tried in this order. */
const ways = [
  { runtime: 'runc', cgroups: 'enabled' },
  { runtime: 'crun', cgroups: 'enabled' },
  { runtime: 'crun', cgroups: 'disabled' },
];

/** Why there can be no engine here; undefined if one may be started. */
export async function whyNoEngine(): Promise<string | undefined> {
  if (process.platform !== 'linux') return 'containers are tested on Linux only';
  if (userInfo().uid !== 0) return 'Podman is started for the tests by root only';
  return run('podman', ['--version']).then(
    () => undefined,
    () => 'there is no podman (Debian and Ubuntu: apt-get install podman runc)',
  );
}

export async function startEngine(): Promise<TestEngine> {
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
    if (service) await until(() => service?.exitCode !== null || service.signalCode !== null, Boolean, 20_000);
    await letGo(dir);
  };
  try {
    await importImage(dir, environment);
    const how = await findWay(dir, environment);
    const log = await fs.open(join(dir, 'service.log'), 'w');
    service = spawn('podman', ['system', 'service', `--time=${endsAfterS}`, `unix://${socketPath}`], {
      env: environment,
      stdio: ['ignore', log.fd, log.fd],
    });
    await log.close();
    const docker = new Docker({ socketPath });
    const answers = () => docker.ping().then(Boolean, () => false);
    await until(answers, Boolean, 30_000);
    return { socketPath, image, docker, how, close };
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

/** Node.js with the libraries it is linked to, and the cell server at the place where it is on this machine. */
async function importImage(dir: string, environment: NodeJS.ProcessEnv): Promise<void> {
  await fs.writeFile(
    join(dir, 'storage.conf'),
    `[storage]
driver = "overlay"
graphroot = "${join(dir, 'storage')}"
runroot = "${join(dir, 'run')}"
`,
  );
  await configure(dir, ways[0]!);
  const rootfs = join(dir, 'rootfs');
  const node = process.execPath;
  const { stdout } = await run('ldd', [node]);
  const libraries = [...stdout.matchAll(/(\/\S+)/g)].map(([, path]) => path!).filter((path) => existsSync(path));
  const server = join(packageRoot, 'dist', 'test', 'support', 'cell-server.js');
  for (const file of [node, ...libraries, server]) {
    await fs.mkdir(join(rootfs, dirname(file)), { recursive: true });
    // Contents, not links: what a link points to is not in the image.
    await fs.copyFile(file, join(rootfs, file));
  }
  await fs.mkdir(join(rootfs, 'tmp'), { recursive: true });
  const archive = join(dir, 'rootfs.tar');
  await run('tar', ['-C', rootfs, '-cf', archive, '.']);
  const importing = (driver: string) =>
    run('podman', ['--storage-driver', driver, 'import', archive, image], { env: environment, timeout: 120_000 });
  await importing('overlay').catch(async () => {
    // Where nothing can be mounted over itself: slower, and works everywhere.
    const storage = await fs.readFile(join(dir, 'storage.conf'), 'utf8');
    await fs.writeFile(join(dir, 'storage.conf'), storage.replace('"overlay"', '"vfs"'));
    await importing('vfs');
  });
  await fs.rm(rootfs, { recursive: true, force: true });
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
