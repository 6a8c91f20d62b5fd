/** A child process that is watched: started until it serves, stopped until it is gone, and missed when it dies. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, readSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { identify, isGroupAlive, type ProcessIdentity, signalGroup } from './process-identity';
import type { Reaper } from './reaper-client';
import { GiveUp, waitUntil } from './wait';

const pauseBetweenAttemptsMs = 200;

export interface ProcessSpec {
  /** How people and logs call it. */
  name: string;
  command: string;
  args: string[];
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  uid?: number;
  gid?: number;
  /** Takes standard output and standard error; appended to, so that it outlives restarts. */
  logFile: string;
  /** Answers true once the process serves. Asked again and again until then; throwing means "not yet". */
  ready: (process: ManagedProcess) => Promise<boolean> | boolean;
  /** @default 120000 */
  readyWithinMs?: number;
  /** The signal that asks for an orderly end. @default 'SIGTERM' */
  stopSignal?: NodeJS.Signals;
  /** How long the orderly end may take before SIGKILL. @default 8000 */
  stopWithinMs?: number;
  /** How often a start whose process ends before it serves is tried. @default 1 */
  startAttempts?: number;
  /** Start it again by itself when it dies unasked, after a pause that grows from first to last; null: its loss is a failure. */
  restartBackoffMs?: { first: number; last: number } | null;
}

export type ProcessState = 'stopped' | 'starting' | 'serving' | 'stopping' | 'lost' | 'waiting-to-restart';

/** What is told about a process after it was started. */
export interface ProcessEvents {
  /** It died unasked and is not started again by itself. */
  onLost(process: ManagedProcess, reason: string): void;
  /** It died unasked and is started again by itself. */
  onRestart(process: ManagedProcess, reason: string): void;
}

export class ManagedProcess {
  state: ProcessState = 'stopped';
  private child: ChildProcess | undefined;
  private identity: ProcessIdentity | undefined;
  private exited: Promise<void> = Promise.resolve();
  private logOffset = 0;
  private restarts = 0;
  private restartTimer: NodeJS.Timeout | undefined;
  /** Someone asked for its end while it was starting. */
  private endAsked = false;
  /** The start that is under way, with all its attempts. */
  private starting: Promise<void> | undefined;

  constructor(
    private readonly spec: ProcessSpec,
    private readonly reaper: Reaper,
    private readonly events: ProcessEvents,
  ) {}

  get name(): string {
    return this.spec.name;
  }

  get logFile(): string {
    return this.spec.logFile;
  }

  /** Of the process that runs now. */
  get pid(): number | undefined {
    return this.child?.pid;
  }

  /** Starts it and waits until it serves. Throws with the end of its log if it dies first or does not serve in time. */
  async start(): Promise<void> {
    if (this.state === 'serving' || this.state === 'starting') {
      throw new Error(`${this.name} already runs (pid ${this.pid}).`);
    }
    clearTimeout(this.restartTimer);
    this.endAsked = false;
    this.starting = this.startInAttempts();
    await this.starting;
  }

  private async startInAttempts(): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.startOnce();
      } catch (error) {
        const again = error instanceof GiveUp && !this.endAsked && attempt < (this.spec.startAttempts ?? 1);
        await this.end('SIGKILL');
        if (!again) throw error;
        await pause(pauseBetweenAttemptsMs);
      }
    }
  }

  private async startOnce(): Promise<void> {
    this.state = 'starting';
    const child = this.spawn();
    await waitUntil(
      async () => {
        if (this.child !== child || child.exitCode !== null || child.signalCode !== null) {
          throw new GiveUp(
            `${this.name} ended before it served (${howItEnded(child)}). ${this.tail()}\nWhole log: ${this.logFile}`,
          );
        }
        return await this.spec.ready(this);
      },
      { withinMs: this.spec.readyWithinMs ?? 120_000, what: `${this.name} serves` },
    ).catch((error: unknown) => {
      if (error instanceof GiveUp) throw error;
      throw new Error(`${(error as Error).message} ${this.tail()}\nWhole log: ${this.logFile}`);
    });
    this.state = 'serving';
  }

  private spawn(): ChildProcess {
    const { command, args, env, cwd, uid, gid, logFile } = this.spec;
    mkdirSync(dirname(logFile), { recursive: true });
    this.logOffset = sizeOf(logFile);
    const log = openSync(logFile, 'a');
    const child = spawn(command, args, {
      // A group of its own: what it starts goes down with it, and Ctrl-C in a terminal reaches only us.
      detached: true,
      stdio: ['ignore', log, log],
      env: { ...process.env, ...env, ...this.reaper.environment },
      ...(cwd !== undefined && { cwd }),
      ...(uid !== undefined && { uid }),
      ...(gid !== undefined && { gid }),
    });
    closeSync(log);
    this.child = child;
    this.identity = undefined;
    if (child.pid !== undefined) {
      this.identity = identify(child.pid);
      this.reaper.watch(this.identity);
    }
    this.exited = new Promise((resolve) => {
      child.once('error', () => resolve());
      child.once('exit', () => resolve());
    });
    void this.exited.then(() => this.noticeEnd(child));
    return child;
  }

  private noticeEnd(child: ChildProcess): void {
    if (this.child !== child || this.state !== 'serving') return;
    const reason = `${this.name} ended unasked (${howItEnded(child)}). ${this.tail()}`;
    const backoff = this.spec.restartBackoffMs;
    if (!backoff) {
      this.state = 'lost';
      this.events.onLost(this, reason);
      return;
    }
    this.state = 'waiting-to-restart';
    this.events.onRestart(this, reason);
    const delayMs = Math.min(backoff.last, backoff.first * 2 ** this.restarts++);
    this.restartTimer = setTimeout(() => void this.restartByItself(), delayMs);
  }

  private async restartByItself(): Promise<void> {
    if (this.state !== 'waiting-to-restart') return;
    try {
      // What the dead one started may still hold its port.
      await this.end('SIGKILL');
      if (this.endAsked) return;
      await this.start();
      this.restarts = 0;
    } catch (error) {
      // Ended on purpose before it served again: that is no loss.
      if (this.endAsked) return;
      this.state = 'lost';
      this.events.onLost(this, (error as Error).message);
    }
  }

  /** Asks it to end, waits, and ends it by force when its time is up. */
  async stop(): Promise<void> {
    await this.endOnPurpose(this.spec.stopSignal ?? 'SIGTERM');
  }

  /** Ends it by this signal, at once and on purpose, and waits until it is gone: nobody is alarmed, and nothing starts it again by itself. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    await this.endOnPurpose(signal);
  }

  /** Sends a signal and does not wait, for those that need not end it (SIGSTOP, SIGCONT). */
  signal(signal: NodeJS.Signals): void {
    if (this.identity) signalGroup(this.identity, signal);
  }

  /** Ends it if it runs and starts it again, with the same ports and data. */
  async restart(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.end(signal);
    await this.start();
  }

  /** A start that is under way has given up when this resolves: it would end what is started next. */
  private async endOnPurpose(signal: NodeJS.Signals): Promise<void> {
    this.endAsked = true;
    await this.end(signal);
    await this.starting?.catch(() => undefined);
  }

  private async end(signal: NodeJS.Signals): Promise<void> {
    clearTimeout(this.restartTimer);
    this.state = 'stopping';
    const { identity } = this;
    if (identity) {
      signalGroup(identity, signal);
      const gone = { everyMs: 20, what: `${this.name} (pid ${identity.pid}) is gone` };
      try {
        await waitUntil(() => !isGroupAlive(identity), { ...gone, withinMs: this.spec.stopWithinMs ?? 8_000 });
      } catch {
        signalGroup(identity, 'SIGKILL');
        await waitUntil(() => !isGroupAlive(identity), { ...gone, withinMs: 10_000 });
      }
      this.reaper.forget(identity);
      await this.exited;
    }
    this.identity = undefined;
    this.child = undefined;
    this.state = 'stopped';
  }

  /** What it has written since it was last started. */
  output(): string {
    return readFrom(this.logFile, this.logOffset);
  }

  /** The last lines it wrote, ready for an error message. */
  tail(lines = 15): string {
    const text = this.output().trimEnd();
    if (text === '') return 'It wrote nothing.';
    return `Its last lines:\n${text
      .split('\n')
      .slice(-lines)
      .map((line) => `    ${line.slice(0, 500)}`)
      .join('\n')}`;
  }
}

function howItEnded(child: ChildProcess): string {
  if (child.pid === undefined) return `${child.spawnfile} could not be started`;
  if (child.signalCode !== null) return `killed by ${child.signalCode}`;
  return `exit code ${child.exitCode ?? 'unknown'}`;
}

function sizeOf(file: string): number {
  try {
    return statSync(file).size;
  } catch {
    return 0;
  }
}

function readFrom(file: string, offset: number): string {
  const size = sizeOf(file);
  if (size <= offset) return '';
  if (offset === 0) return readFileSync(file, 'utf8');
  const buffer = Buffer.alloc(size - offset);
  const fd = openSync(file, 'r');
  try {
    return buffer.toString('utf8', 0, readSync(fd, buffer, 0, buffer.length, offset));
  } finally {
    closeSync(fd);
  }
}
