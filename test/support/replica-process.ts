/** A control plane as a process of its own that can be killed and started again at the same ports. */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { TrafficClient } from '../../envoy/traffic-client';
import { releasePorts, reservePorts } from '../../local/ports';
import { waitUntil } from '../../local/wait';
import { packageRoot } from '../../package-root';

export class ReplicaProcess {
  private child: ChildProcess | undefined;
  private output = '';
  private readonly dir = mkdtempSync(join(tmpdir(), 'understudy-replica-'));
  readonly client: TrafficClient;

  private constructor(
    readonly xdsPort: number,
    readonly trafficPort: number,
    postgresUrl: string,
  ) {
    this.client = new TrafficClient(`127.0.0.1:${trafficPort}`);
    const settings = {
      kafka: { brokers: ['127.0.0.1:1'] },
      temporal: { address: '127.0.0.1:1' },
      postgres: { url: postgresUrl },
      controlPlane: {
        xdsAddress: `127.0.0.1:${xdsPort}`,
        trafficAddress: `127.0.0.1:${trafficPort}`,
        loadReportIntervalMs: 200,
      },
    };
    writeFileSync(join(this.dir, 'settings.yaml'), stringify(settings));
  }

  static async start(postgresUrl: string): Promise<ReplicaProcess> {
    const [xdsPort, trafficPort] = (await reservePorts(2)) as [number, number];
    const replica = new ReplicaProcess(xdsPort, trafficPort, postgresUrl);
    await replica.start();
    return replica;
  }

  get isRunning(): boolean {
    return this.child !== undefined;
  }

  async start(): Promise<void> {
    if (this.child) return;
    this.output = '';
    const script = join(packageRoot, 'dist', 'envoy', 'control-plane.js');
    const child = spawn(process.execPath, [script, '--settings', join(this.dir, 'settings.yaml')], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.child = child;
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (text: Buffer) => (this.output += String(text)));
    child.on('exit', () => {
      if (this.child === child) this.child = undefined;
    });
    await waitUntil(() => this.output.includes('"msg":"ready"') || (this.child !== child && 'ended'), {
      withinMs: 60_000,
      what: 'the replica is ready',
    });
    if (this.child !== child) throw new Error(`the replica ended before it was ready:\n${this.output}`);
  }

  log(): string {
    return this.output;
  }

  /** kill -9; resolves once it has ended. */
  async kill(): Promise<void> {
    const child = this.child;
    if (!child) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
  }

  async stop(): Promise<void> {
    this.client.close();
    const child = this.child;
    if (child) {
      const ended = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGTERM');
      await ended;
    }
    releasePorts([this.xdsPort, this.trafficPort]);
    rmSync(this.dir, { recursive: true, force: true });
  }
}
