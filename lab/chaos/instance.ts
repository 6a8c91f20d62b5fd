/** One process of a cell, or of something a cell depends on: started under its limits, listened to, ordered about, stopped. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { request } from 'node:http';
import { createInterface } from 'node:readline';
import type { FaultOrder, ReadyLine, StepLine } from '../contract';
import type { CellGroups } from './limits';

const readyWithinMs = 30_000;
const answerWithinMs = 3000;
const drainWithinMs = 4000;

export interface InstanceStart {
  name: string;
  command: readonly string[];
  fdLimit: number;
  groups: CellGroups;
  env: NodeJS.ProcessEnv;
  onStep: (line: StepLine) => void;
}

export class Instance {
  readonly startedMs = Date.now();
  /** When the process ended; undefined while it lives. */
  endedMs: number | undefined;
  /** The end was ordered: it is no failure. */
  stopping = false;
  port = 0;
  private stderr = '';

  private constructor(
    readonly name: string,
    private readonly child: ChildProcess,
  ) {
    child.once('exit', () => (this.endedMs = Date.now()));
    child.stderr?.on('data', (chunk: Buffer) => (this.stderr = (this.stderr + chunk.toString()).slice(-2000)));
  }

  /** Resolves when the instance serves; otherwise it is stopped and the error says what it said last. */
  static async start({ name, command, fdLimit, groups, env, onStep }: InstanceStart): Promise<Instance> {
    const child = spawn('prlimit', [`--nofile=${fdLimit}:${fdLimit}`, ...command], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env,
    });
    const instance = new Instance(name, child);
    try {
      if (child.pid === undefined) await once(child, 'spawn');
      groups.add(instance.pid);
      const lines = createInterface({ input: child.stdout });
      const ended = once(child, 'exit').then(() => {
        throw new Error(`it ended before it was ready; its last words: ${instance.stderr.trim() || 'none'}`);
      });
      const ready = once(lines, 'line', { signal: AbortSignal.timeout(readyWithinMs) });
      const [line] = (await Promise.race([ready, ended])) as [string];
      ended.catch(() => undefined);
      instance.port = (JSON.parse(line) as ReadyLine).port;
      lines.on('line', (text) => {
        // The last line of a process that was killed may be cut off.
        if (text.endsWith('}')) onStep(JSON.parse(text) as StepLine);
      });
      return instance;
    } catch (error) {
      instance.kill();
      throw new Error(`${name} did not start: ${(error as Error).message}`);
    }
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  get lastWords(): string {
    return this.stderr;
  }

  /** An instance may die or stall just now; what is measured shows it, and nothing depends on the answer. */
  order(order: FaultOrder): void {
    if (this.endedMs !== undefined) return;
    const outgoing = request(
      { port: this.port, path: '/admin/fault', method: 'POST', agent: false, timeout: answerWithinMs },
      (answer) => {
        answer.resume();
        if (answer.statusCode === 400) {
          process.stderr.write(`${this.name} refused ${JSON.stringify(order)}.\n`);
        }
      },
    );
    const text = JSON.stringify(order);
    outgoing.setHeader('content-length', Buffer.byteLength(text));
    outgoing.on('timeout', () => outgoing.destroy());
    outgoing.on('error', () => undefined);
    outgoing.end(text);
  }

  /** As a fault, unless the instance was being stopped anyway. */
  kill(): void {
    this.child.kill('SIGKILL');
  }

  async drain(): Promise<void> {
    this.stopping = true;
    if (this.endedMs !== undefined) return;
    const ended = once(this.child, 'exit');
    this.child.kill('SIGTERM');
    const lastResort = setTimeout(() => this.kill(), drainWithinMs);
    await ended;
    clearTimeout(lastResort);
  }

  async stop(): Promise<void> {
    this.stopping = true;
    if (this.endedMs !== undefined) return;
    const ended = once(this.child, 'exit');
    this.kill();
    await ended;
  }
}
