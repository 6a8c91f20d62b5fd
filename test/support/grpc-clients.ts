/** gRPC clients that take xDS themselves, as processes of their own, and gRPC cells for them to call. */
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Instance } from '../../blueprints/schema';
import { packageRoot } from '../../package-root';

export interface Calls {
  /** By instance. */
  answered: Record<string, number>;
  failed: string[];
}

/** Makes calls one after the other and counts who answered. */
export class GrpcClient {
  private readonly lines: AsyncIterator<string>;
  private errors = '';

  private constructor(private readonly child: ChildProcess) {
    this.lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    child.stderr!.on('data', (bytes: Buffer) => (this.errors += bytes.toString()));
  }

  static grpcJs(target: string, xdsPort: number): GrpcClient {
    const program = join(packageRoot, 'dist', 'test', 'support', 'grpc-js-client.js');
    return GrpcClient.start(process.execPath, [program, target], 'grpc-js', xdsPort);
  }

  static cCore(packages: string, target: string, xdsPort: number): GrpcClient {
    const program = join(packageRoot, 'test', 'support', 'grpcio-client.py');
    return GrpcClient.start('python3', [program, target], 'c-core', xdsPort, { PYTHONPATH: packages });
  }

  async call(times: number): Promise<Calls> {
    this.child.stdin!.write(`${times}\n`);
    const line = await this.lines.next();
    if (line.done) throw new Error(`the client has gone: ${this.errors}`);
    return JSON.parse(line.value) as Calls;
  }

  stop(): void {
    this.child.stdin!.end();
    this.child.kill();
  }

  private static start(command: string, args: string[], node: string, xdsPort: number, env = {}): GrpcClient {
    const bootstrap = {
      xds_servers: [
        {
          server_uri: `127.0.0.1:${xdsPort}`,
          channel_creds: [{ type: 'insecure' }],
          server_features: ['xds_v3'],
        },
      ],
      node: { id: node, cluster: 'callers', locality: {} },
    };
    const settings = { GRPC_XDS_BOOTSTRAP_CONFIG: JSON.stringify(bootstrap), GRPC_EXPERIMENTAL_XDS_FALLBACK: 'false' };
    return new GrpcClient(spawn(command, args, { env: { ...process.env, ...settings, ...env } }));
  }
}

/** The folder with gRPC's C core for Python, fetched on first use; or, in one sentence, why this Python cannot have it. */
export function grpcioPackages(): { packages: string } | { problem: string } {
  const requirements = join(packageRoot, 'test', 'support', 'grpcio-requirements.txt');
  const version = spawnSync('python3', ['-c', 'import sys; print("%d.%d" % sys.version_info[:2])'], {
    encoding: 'utf8',
  });
  if (version.status !== 0) return { problem: 'there is no python3' };
  const lock = createHash('sha256')
    .update(readFileSync(requirements))
    .update(version.stdout)
    .digest('hex')
    .slice(0, 12);
  const packages = join(packageRoot, '.parts', `grpcio-${lock}`);
  if (existsSync(packages)) return { packages };
  const fetched = mkdtempSync(`${packages}.tmp-`);
  const only = ['--only-binary', ':all:', '--require-hashes', '--no-deps', '--no-input', '--quiet'];
  const options = { encoding: 'utf8', env: { ...process.env, PIP_USER: '0' }, timeout: 120_000 } as const;
  const pip = ['-m', 'pip', 'install', ...only, '--target', fetched, '--requirement', requirements];
  const { status, stderr } = spawnSync('python3', pip, options);
  if (status !== 0) return { problem: `pip cannot install it: ${stderr.trim().split('\n').at(-1)}` };
  try {
    renameSync(fetched, packages);
  } catch (error) {
    // Another run was faster; what it fetched is the same.
    if (!existsSync(packages)) throw error;
  }
  return { packages };
}

/** gRPC servers whose one method says which instance answered. */
export class GrpcCells {
  private readonly servers: Server[] = [];

  async start(cell: string, count: number): Promise<Instance[]> {
    const instances: Instance[] = [];
    for (let n = 1; n <= count; n += 1) {
      const name = `${cell}-${n}`;
      const server = new Server();
      const asIs = (bytes: Buffer): Buffer => bytes;
      const method = { path: '/shop.Shop/Who', requestStream: false, responseStream: false } as const;
      const codec = {
        requestSerialize: asIs,
        requestDeserialize: asIs,
        responseSerialize: asIs,
        responseDeserialize: asIs,
      };
      server.addService(
        { who: { ...method, ...codec } },
        { who: (_: unknown, answer: (error: null, value: Buffer) => void) => answer(null, Buffer.from(name)) },
      );
      const port = await new Promise<number>((resolve, reject) =>
        server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
          error ? reject(error) : resolve(bound),
        ),
      );
      this.servers.push(server);
      instances.push({ name, address: '127.0.0.1', port });
    }
    return instances;
  }

  stop(): void {
    for (const server of this.servers) server.forceShutdown();
  }
}
