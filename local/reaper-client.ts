/** The stack's line to its reaper, the tiny process that cleans up when this one dies without a chance to. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../package-root';
import type { ProcessIdentity } from './process-identity';

/** Every process of a run carries this in its environment, so that one started just before a kill -9 is found too. */
const runVariable = 'UNDERSTUDY_RUN';

export class Reaper {
  private readonly run = randomUUID();
  private readonly child: ChildProcess;

  constructor() {
    const program = join(packageRoot, 'dist', 'local', 'reaper.js');
    if (!existsSync(program)) throw new Error(`${program} is missing: build first, by npm run build.`);
    this.child = spawn(process.execPath, [program], {
      // A session of its own: signals to our terminal or group must not end it before its work is done.
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    // Its death is no reason to fail, and neither the process nor the pipe may keep this program running.
    this.child.on('error', () => undefined);
    this.child.stdin?.on('error', () => undefined);
    this.child.unref();
    (this.child.stdin as unknown as { unref?: () => void } | null)?.unref?.();
    this.say(`environment ${runVariable}=${this.run}`);
  }

  /** To be set on every process of this stack. */
  get environment(): Record<string, string> {
    return { [runVariable]: this.run };
  }

  watch({ pid, startedAt }: ProcessIdentity): void {
    this.say(`+${pid} ${startedAt ?? '-'}`);
  }

  forget({ pid }: ProcessIdentity): void {
    this.say(`-${pid}`);
  }

  /** The process provider's state folder: what it recorded there is stopped as well. */
  watchCells(stateDir: string): void {
    this.say(`dir ${stateDir}`);
  }

  /** A folder to remove when all are gone. */
  removeAtEnd(dir: string): void {
    this.say(`remove ${dir}`);
  }

  /** Takes `removeAtEnd` back. */
  keep(dir: string): void {
    this.say(`keep ${dir}`);
  }

  /** Ends the reaper, which then makes sure of what is left. */
  async close(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null || this.child.pid === undefined) return;
    this.child.ref();
    const gone = new Promise<void>((resolve) => this.child.once('exit', () => resolve()));
    this.child.stdin?.end();
    await gone;
  }

  private say(line: string): void {
    this.child.stdin?.write(`${line}\n`);
  }
}
