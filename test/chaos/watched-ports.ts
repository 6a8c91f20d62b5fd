/** Stands between a worker's activities and their ports: writes down every side effect, and at a chosen one kills, fails or hangs. */
import { AsyncLocalStorage } from 'node:async_hooks';
import { appendFileSync } from 'node:fs';
import type { ActivityExecuteInput, ActivityInboundCallsInterceptor, Next } from '@temporalio/worker';
import type { Context } from '@temporalio/activity';
import type { ShiftRequest } from '../../workflows/steps';
import type { PoolPoint } from './pool-side-effects';
import type { Nature, Point, PortName } from './side-effects';
import { ports } from './side-effects';

/** What is to go wrong, and where. `fail` comes instead of the effect or, when `after`, its answer is lost. */
export interface Fault extends Pick<Point, 'effect' | 'when'> {
  deed: Point['deed'] | PoolPoint['deed'];
  what: 'kill' | 'fail' | 'hang';
  /** How often; a killed process cannot count on. @default 1 */
  times?: number;
  /** It cannot be mended by trying again. */
  forGood?: boolean;
}

/** One line of what a worker did. */
export interface Witnessed {
  atMs: number;
  pid: number;
  deed: string;
  effect: string;
  stage: 'begun' | 'done' | 'failed' | 'fault';
  /** Of `store.recordDecisions`: what was told. */
  told?: { id: string }[];
}

/** Never answered. */
const never = new Promise<never>(() => undefined);

export class Witness {
  private readonly deed = new AsyncLocalStorage<string>();
  private left: number;

  constructor(
    private readonly journal: string,
    private readonly fault: Fault | null,
    private readonly refusal: (message: string) => Error,
  ) {
    this.left = fault?.times ?? 1;
  }

  /** Knows which activity a call belongs to. */
  interceptor(context: Context): ActivityInboundCallsInterceptor {
    const name = context.info.activityType;
    return {
      execute: (input: ActivityExecuteInput, next: Next<ActivityInboundCallsInterceptor, 'execute'>) => {
        const deed = name === 'shiftTraffic' ? `${name}(${(input.args[0] as ShiftRequest).purpose})` : name;
        return this.deed.run(deed, () => this.around('itself', () => next(input)));
      },
    };
  }

  /** The port with every call that changes something witnessed. */
  watched<T extends object>(port: PortName, target: T): T {
    const natures = ports[port] as Record<string, Nature>;
    return new Proxy(target, {
      get: (object, name) => {
        const value: unknown = Reflect.get(object, name, object);
        if (typeof value !== 'function' || typeof name !== 'string') return value;
        const nature = natures[name];
        if (!nature) throw new Error(`${port}.${name} stands in no table of side effects`);
        const method = value.bind(object) as (...args: unknown[]) => Promise<unknown>;
        if (nature === 'reads') return method;
        return (...args: unknown[]) => this.around(`${port}.${name}`, () => method(...args), args);
      },
    });
  }

  private async around<T>(effect: string, act: () => Promise<T>, args: unknown[] = []): Promise<T> {
    this.write(effect, 'begun', args);
    await this.strike(effect, 'before');
    try {
      const answer = await act();
      this.write(effect, 'done');
      await this.strike(effect, 'after');
      return answer;
    } catch (err) {
      this.write(effect, 'failed');
      throw err;
    }
  }

  private async strike(effect: string, when: Point['when']): Promise<void> {
    const { fault } = this;
    if (
      !fault ||
      fault.deed !== this.deed.getStore() ||
      fault.effect !== effect ||
      fault.when !== when ||
      this.left === 0
    )
      return;
    this.left -= 1;
    this.write(effect, 'fault');
    if (fault.what === 'hang') return never;
    const words = `the test lets ${effect} fail`;
    if (fault.what === 'fail') throw fault.forGood ? this.refusal(words) : new Error(words);
    process.kill(process.pid, 'SIGKILL');
    return never;
  }

  /** At once and synchronously: what is written outlives the process. */
  private write(effect: string, stage: Witnessed['stage'], args: unknown[] = []): void {
    const line: Witnessed = { atMs: Date.now(), pid: process.pid, deed: this.deed.getStore() ?? '', effect, stage };
    if (effect === 'store.recordDecisions' && stage === 'begun') line.told = args[0] as { id: string }[];
    appendFileSync(this.journal, `${JSON.stringify(line)}\n`);
  }
}
