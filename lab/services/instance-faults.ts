/** The faults that every JavaScript service of the lab can have, really done to the process that they are ordered of. */
import { closeSync, openSync } from 'node:fs';
import { HeapLeak, leakShapes } from '../heap-leak';
import { instanceFaults, type FaultOrder, type InstanceFault } from '../contract';
import { CpuBurn } from './cpu';

/** Puts one fault in force at a level; 0 ends it, `release` gives back what it had taken. */
export type FaultHandler = (level: number, release: boolean) => void;
export type FaultHandlers = { [F in InstanceFault]?: FaultHandler };

const tickMs = 100;
const bufferBytes = 64 * 1024;
/** How much longer a request of the fault `gray-slow` takes. */
const graySlowFactor = 20;

const shares: ReadonlySet<string> = new Set(['cpu-burn', 'gray-slow', 'gray-error', 'bad-release', 'cache-flush']);
const factors: ReadonlySet<string> = new Set(['slow-code', 'consumer-slow']);

/** Checks an order; throws an error with one sentence for whoever gave it. */
export function parseFaultOrder(text: string): FaultOrder {
  const { fault, level, release } = (JSON.parse(text) ?? {}) as Partial<Record<keyof FaultOrder, unknown>>;
  const known = Object.keys(instanceFaults).join(', ');
  if (typeof fault !== 'string' || !Object.hasOwn(instanceFaults, fault)) {
    throw new Error(`Unknown fault ${JSON.stringify(fault)}; known are ${known}.`);
  }
  const name = fault as InstanceFault;
  if (typeof level !== 'number' || !Number.isFinite(level) || level < 0) {
    throw new Error(`The level of ${name} must be a number of 0 or above: ${instanceFaults[name]}.`);
  }
  if ((shares.has(name) && level > 1) || (factors.has(name) && level > 0 && level < 1)) {
    throw new Error(`Level ${level} is outside of the range of ${name}: ${instanceFaults[name]}.`);
  }
  return { fault: name, level, release: release === true };
}

/** Allocates memory outside of the heap, touched so that it is resident, and keeps it. */
class BufferLeak {
  private kept: Buffer[] = [];
  private timer: NodeJS.Timeout | undefined;

  set(bytesPerSecond: number, release: boolean): void {
    clearInterval(this.timer);
    if (release) this.kept = [];
    if (bytesPerSecond <= 0) return;
    let owed = 0;
    this.timer = setInterval(() => {
      owed += (bytesPerSecond * tickMs) / 1000;
      for (; owed >= bufferBytes; owed -= bufferBytes) this.kept.push(Buffer.allocUnsafeSlow(bufferBytes).fill(1));
    }, tickMs);
  }
}

/** Opens files and never closes them. At the limit it goes on trying, so that what others close is soon taken, too. */
class FileLeak {
  private open: number[] = [];
  private timer: NodeJS.Timeout | undefined;

  set(perSecond: number, release: boolean): void {
    clearInterval(this.timer);
    if (release) for (const fd of this.open.splice(0)) closeSync(fd);
    if (perSecond <= 0) return;
    let owed = 0;
    this.timer = setInterval(() => {
      owed += (perSecond * tickMs) / 1000;
      for (; owed >= 1; owed--) {
        try {
          this.open.push(openSync('/dev/null', 'r'));
        } catch {
          owed = 1;
          return;
        }
      }
    }, tickMs);
  }
}

/** The generic faults of one instance, and what they mean for each request. */
export class InstanceFaults {
  private readonly heapLeak = new HeapLeak();
  private readonly bufferLeak = new BufferLeak();
  private readonly fileLeak = new FileLeak();
  private readonly cpuBurn: CpuBurn;
  private slowCode = 1;
  private graySlow = 0;
  private grayError = 0;
  private badRelease = 0;

  /**
   * @param random uniform in [0, 1)
   * @param leakShape index in `leakShapes`: how a heap leak grows
   * @param onChange called when a release is rolled out or back
   * @param burnSliceMs CPU time that `cpu-burn` uses in one piece; longer ones are felt by every request
   */
  constructor(
    private readonly random: () => number,
    leakShape: number,
    onChange: () => void,
    burnSliceMs?: number,
  ) {
    this.cpuBurn = new CpuBurn(burnSliceMs);
    const shape = leakShapes[leakShape] ?? 'steady';
    this.handlers = {
      'heap-leak': (bytesPerSecond, release) => this.heapLeak.set({ bytesPerSecond, shape, release }),
      'buffer-leak': (bytesPerSecond, release) => this.bufferLeak.set(bytesPerSecond, release),
      'cpu-burn': (share) => this.cpuBurn.set(share),
      'slow-code': (factor) => (this.slowCode = Math.max(1, factor)),
      'fd-leak': (perSecond, release) => this.fileLeak.set(perSecond, release),
      'gray-slow': (share) => (this.graySlow = share),
      'gray-error': (share) => (this.grayError = share),
      'bad-release': (share) => {
        this.badRelease = share;
        onChange();
      },
    };
  }

  readonly handlers: FaultHandlers;

  onRequest(): void {
    this.heapLeak.onRequest();
  }

  /** Factor on the time of the next piece of work. */
  timeFactor(): number {
    return this.slowCode * (this.graySlow > 0 && this.random() < this.graySlow ? graySlowFactor : 1);
  }

  /** Whether the next request is to be answered 500. */
  failsNext(): boolean {
    const share = this.grayError + this.badRelease;
    return share > 0 && this.random() < share;
  }
}
