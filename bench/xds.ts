/**
 * How fast, and at what cost, a change reaches a thousand proxies over mutual TLS, beside go-control-plane in the same
 * run. `npm run bench:xds [-- --json FILE]`; `--streams N`, `--steps N`, `--rounds N` (the least of them counts, for
 * both), `--processes N` for our side, `--soak` for 5,000 streams over ten minutes, `--peer-command CMD` for another
 * peer: a command that takes `--ca --cert --key` and prints `{"port", "controlPort", "pid"}` as one line of JSON. Then
 * what a real Envoy makes of commanded splits, see `xds-envoy.ts`; `--only streams|envoy` for one of the two.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { packageRoot } from '../package-root';
import { atMost, plain, say, write, type Figure } from './figures';
import type { Measured, Task } from './xds-client';
import { benchEnvoy } from './xds-envoy';

interface Tls {
  ca: string;
  cert: string;
  key: string;
}

interface Started {
  port: number;
  controlPort: number;
  pids: number[];
  stop: () => Promise<void>;
}

/** An authority, a server on loopback and a client, over P-256. */
function makeCertificates(dir: string): { server: Tls; client: Tls } {
  const file = (name: string): string => join(dir, name);
  const openssl = (...args: string[]): void => {
    try {
      execFileSync(
        'openssl',
        ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-noenc', ...args],
        {
          stdio: 'pipe',
        },
      );
    } catch (error) {
      throw new Error(`certificates cannot be made; is openssl 3 installed? ${(error as Error).message}`, {
        cause: error,
      });
    }
  };
  const ca = file('ca.pem');
  openssl('-subj', '/CN=bench', '-keyout', file('ca.key'), '-out', ca, '-days', '2');
  const pair = (name: string, alternativeNames: string): Tls => {
    const made = { ca, cert: file(`${name}.pem`), key: file(`${name}.key`) };
    const names = ['-subj', `/CN=${name}`, '-addext', `subjectAltName=${alternativeNames}`, '-days', '1'];
    const leaf = ['-addext', 'basicConstraints=critical,CA:FALSE'];
    openssl('-CA', ca, '-CAkey', file('ca.key'), ...names, ...leaf, '-keyout', made.key, '-out', made.cert);
    return made;
  };
  return {
    server: pair('server', 'DNS:localhost,IP:127.0.0.1'),
    client: pair('client', 'URI:spiffe://bench/node/bench'),
  };
}

async function start(command: string, args: string[], tls: Tls): Promise<Started> {
  const all = [...args, '--ca', tls.ca, '--cert', tls.cert, '--key', tls.key];
  const child = spawn(command, all, { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const failed = new Promise<never>((_, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`${command} ended with ${code} before it was ready`)));
  });
  failed.catch(() => undefined);
  const line = await Promise.race([firstLine(child), failed]);
  const {
    port,
    controlPort,
    pid,
    pids = [pid],
  } = JSON.parse(line) as {
    port: number;
    controlPort: number;
    pid: number;
    pids?: number[];
  };
  const stop = (): Promise<void> => {
    child.kill('SIGTERM');
    return ended;
  };
  return { port, controlPort, pids, stop };
}

function firstLine(child: ChildProcess): Promise<string> {
  return new Promise((resolve) => createInterface(child.stdout!).once('line', resolve));
}

async function measure(server: Started, tls: Tls, load: Pick<Task, 'streams' | 'steps' | 'soakS'>): Promise<Measured> {
  const { port, controlPort, pids } = server;
  const task: Task = { port, controlPort, pids, ...tls, pauseMs: 200, ...load };
  const child = spawn(process.execPath, [join(__dirname, 'xds-client.js'), JSON.stringify(task)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  if (code !== 0) throw new Error(`the load client ended with ${code}`);
  const measured = JSON.parse(text) as Measured;
  if (measured.lost.length > 0) throw new Error(`${measured.lost.length} connections were lost: ${measured.lost[0]}`);
  return measured;
}

/** The peer's command: given, or built from `bench/xds-peer` where Go is; undefined with a word of why otherwise. */
function peerCommand(given: string | undefined, dir: string): string[] | undefined {
  if (given !== undefined) return given.split(' ');
  const go = ['go', '/usr/local/go/bin/go'].find((path) => {
    try {
      return execFileSync(path, ['version'], { stdio: 'pipe' }).length > 0;
    } catch {
      return false;
    }
  });
  if (go === undefined) {
    process.stdout.write('peer skipped: no go\n');
    return undefined;
  }
  const binary = join(dir, 'xds-peer');
  execFileSync(go, ['build', '-o', binary, '.'], { cwd: join(packageRoot, 'bench', 'xds-peer'), stdio: 'inherit' });
  return [binary];
}

/** Of each figure the least over the rounds: what others do on the machine only ever adds. */
function least(rounds: Measured[]): Measured {
  const best = { ...rounds[0]! };
  for (const round of rounds.slice(1)) {
    for (const [name, value] of Object.entries(round) as [keyof Measured, unknown][]) {
      if (typeof value === 'number') Object.assign(best, { [name]: Math.min(best[name] as number, value) });
    }
  }
  return best;
}

function compare(ours: Measured, peer: Measured | undefined, task: { streams: number; steps: number }): Figure[] {
  const { streams, steps } = task;
  const beside = (name: string, unit: string, key: 'p50Ms' | 'p99Ms' | 'cpuMsPerStep' | 'kibPerStream'): Figure[] =>
    peer
      ? [atMost(name, ours[key], unit, Number(peer[key].toPrecision(4))), plain(`  the peer's`, peer[key], unit)]
      : [plain(name, ours[key], unit)];
  const told = (name: string, unit: string, key: 'allMs' | 'clientCpuMsPerStep' | 'serveCpuMs'): Figure[] => [
    plain(name, ours[key], unit),
    ...(peer ? [plain(`  the peer's`, peer[key], unit)] : []),
  ];
  const { serialised = NaN, built = NaN } = ours.control;
  return [
    ...beside(`${streams} streams, publish to stream p50`, 'ms', 'p50Ms'),
    ...beside('publish to stream p99', 'ms', 'p99Ms'),
    ...told('publish to the slowest stream, median', 'ms', 'allMs'),
    ...beside('CPU per step', 'ms', 'cpuMsPerStep'),
    ...told('CPU of the load client per step', 'ms', 'clientCpuMsPerStep'),
    ...beside('memory per stream', 'KiB', 'kibPerStream'),
    atMost('all streams served', ours.allServedMs / 1000, 's', 1.5),
    ...(peer ? [plain(`  the peer's`, peer.allServedMs / 1000, 's')] : []),
    ...told('CPU until all are served', 'ms', 'serveCpuMs'),
    atMost('serialisations of the resource per step', serialised / steps, '', 1),
    plain('responses put together per step', built / steps, ''),
    atMost('bytes sent when the same split is posted again', ours.repeatBytes, 'B', 0),
    atMost(`resources sent again to ${streams} reconnects`, ours.resent, '', 0),
    plain('reconnects, until connected', ours.reconnectMs / 1000, 's'),
  ];
}

/** Memory at the end against memory once it had settled, in the second minute. */
function soakFigures({ soak }: Measured, streams: number): Figure[] {
  const mean = (from: number, to: number): number => {
    const some = soak.filter(({ atS }) => atS >= from && atS < to);
    return some.reduce((sum, { rssKib }) => sum + rssKib, 0) / some.length;
  };
  const endS = soak.at(-1)!.atS;
  const settled = mean(60, 120);
  const atEnd = mean(endS - 60, endS + 1);
  return [
    plain(`${streams} streams over ${Math.round(endS)} s, steps`, soak.length, ''),
    plain('memory in the second minute', settled / 1024, 'MiB'),
    plain('memory in the last minute', atEnd / 1024, 'MiB'),
    atMost('growth', (100 * (atEnd - settled)) / settled, '%', 3),
  ];
}

interface Options {
  streams?: string;
  steps: string;
  rounds: string;
  processes: string;
  soak: boolean;
  'soak-seconds': string;
  'peer-command'?: string;
}

/** Many streams at our server, and at the peer. */
async function benchStreams(values: Options): Promise<Figure[]> {
  const dir = mkdtempSync(join(tmpdir(), 'bench-xds-'));
  try {
    const tls = makeCertificates(dir);
    const ourCommand = [process.execPath, join(__dirname, 'xds-server.js'), '--processes', values.processes];
    const run = async ([command, ...args]: string[], load: Pick<Task, 'streams' | 'steps' | 'soakS'>) => {
      const server = await start(command!, args, tls.server);
      return measure(server, tls.client, load).finally(() => server.stop());
    };
    if (values.soak) {
      const load = { streams: Number(values.streams ?? 5000), steps: 1, soakS: Number(values['soak-seconds']) };
      return soakFigures(await run(ourCommand, load), load.streams);
    }
    const load = { streams: Number(values.streams ?? 1000), steps: Number(values.steps), soakS: 0 };
    const peer = peerCommand(values['peer-command'], dir);
    const rounds: { ours: Measured[]; peers: Measured[] } = { ours: [], peers: [] };
    for (let round = 0; round < Number(values.rounds); round++) {
      rounds.ours.push(await run(ourCommand, load));
      if (peer) rounds.peers.push(await run(peer, load));
    }
    return compare(least(rounds.ours), peer && least(rounds.peers), load);
  } finally {
    rmSync(dir, { recursive: true });
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      json: { type: 'string' },
      only: { type: 'string' },
      streams: { type: 'string' },
      steps: { type: 'string', default: '20' },
      rounds: { type: 'string', default: '3' },
      processes: { type: 'string', default: '1' },
      soak: { type: 'boolean', default: false },
      'soak-seconds': { type: 'string', default: '600' },
      'peer-command': { type: 'string' },
    },
  });
  const { only } = values;
  if (only !== undefined && only !== 'streams' && only !== 'envoy')
    throw new Error(`--only takes streams or envoy, not ${only}`);
  const busy = (loadavg()[0] ?? 0).toFixed(1);
  process.stdout.write(`load average ${busy}: what others do on this machine slows this\n`);
  const figures: Figure[] = [];
  const add = (more: Figure[]): void => {
    say(more);
    figures.push(...more);
  };
  if (only !== 'envoy') add(await benchStreams(values));
  if (only === 'envoy' || (only === undefined && !values.soak)) add(await benchEnvoy());
  if (values.json !== undefined) write(values.json, figures);
  if (figures.some(({ met }) => met === false)) process.exitCode = 1;
}

main().catch((error: unknown) => {
  process.stderr.write(`bench:xds: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
