/** Runs cells by a command of the user's own: the way to Terraform, Ansible or a cloud's command line. */
import { RefusedError } from '../blueprints/records';
import {
  execContract,
  refusedCode,
  readAnswer,
  withoutPaths,
  type AnsweredCell,
  type ExecAnswer,
  type ExecCall,
  type ExecOperation,
} from './exec-contract';
import {
  instanceNames,
  leaseEnd,
  phaseOf,
  type CellProvider,
  type CellSpec,
  type IdleWay,
  type ObservedCell,
  type ObservedInstance,
  type OwnTls,
} from './provider';
import { whyNotReady, whyNotReadyOverTls } from './readiness';
import { runCommand } from './run-command';

export interface ExecProviderOptions {
  /** What a blueprint calls it, as `exec:NAME`. */
  name: string;
  /** Argument vector, no shell. */
  command: readonly string[];
  workingDirectory?: string | undefined;
  /** Beside PATH and HOME its whole environment. */
  environment?: Readonly<Record<string, string>>;
  /** Of one call, in seconds. Default 30. */
  timeoutS?: number;
  /** Needed for cells that have an identity. */
  ownTls?: OwnTls | undefined;
}

export class ExecProvider implements CellProvider {
  readonly kind: string;

  constructor(private readonly options: ExecProviderOptions) {
    this.kind = `exec:${options.name}`;
  }

  async ensure(spec: CellSpec): Promise<ObservedCell> {
    const { cell, leaseS } = spec;
    const lease = leaseS === undefined ? {} : { expiresAt: leaseEnd(leaseS) };
    const answer = await this.call({ operation: 'ensure', cell, spec, instances: instanceNames(spec), ...lease });
    return this.observed(answer.cell);
  }

  async observe(cell: string): Promise<ObservedCell> {
    return this.observed((await this.call({ operation: 'observe', cell })).cell);
  }

  async idle(cell: string, how: IdleWay): Promise<ObservedCell> {
    return this.observed((await this.call({ operation: 'idle', cell, idle: how })).cell);
  }

  async renew(cell: string, leaseS: number): Promise<boolean> {
    return (await this.call({ operation: 'renew', cell, expiresAt: leaseEnd(leaseS) })).renewed;
  }

  async destroy(cell: string): Promise<void> {
    await this.call({ operation: 'destroy', cell });
  }

  async removeLapsed(cell: string): Promise<boolean> {
    return (await this.call({ operation: 'remove-lapsed', cell })).removed;
  }

  async list(owner?: string): Promise<ObservedCell[]> {
    const { cells } = await this.call({ operation: 'list' });
    const wanted = cells.filter((cell) => cell.phase !== 'absent' && (owner === undefined || cell.owner === owner));
    return Promise.all(wanted.map((cell) => this.observed(cell)));
  }

  /** What the command calls ready is believed once it answers: some say so too early. */
  private async observed(answer: AnsweredCell): Promise<ObservedCell> {
    const { instances, phase, ...cell } = withoutPaths(answer);
    const checked = await Promise.all(
      instances.map(async (instance, index): Promise<ObservedInstance> => {
        if (instance.phase !== 'ready') return instance;
        const reason = await this.whyNotReady(answer.instances[index]!);
        if (reason === undefined) return instance;
        return { ...instance, phase: 'provisioning', reason: `${this.kind} calls it ready, but ${reason}` };
      }),
    );
    return { ...cell, phase: phase ?? phaseOf(checked), instances: checked, observedAt: new Date().toISOString() };
  }

  private async whyNotReady(instance: AnsweredCell['instances'][number]): Promise<string | undefined> {
    const { readinessPath, readinessProtocol, tls } = instance;
    const { address, port } = instance;
    const asked = { path: readinessPath, protocol: readinessProtocol };
    if (!tls) return whyNotReady({ address, port }, asked);
    const { ownTls } = this.options;
    if (!ownTls) return 'it speaks TLS, and the settings say nothing of cells.identity';
    return whyNotReadyOverTls({ address, port }, asked, ownTls);
  }

  private async call<O extends ExecOperation>(
    asked: Omit<ExecCall, 'contract'> & { operation: O },
  ): Promise<ExecAnswer<O>> {
    const { command, environment, workingDirectory, timeoutS = 30 } = this.options;
    const call = { contract: execContract, ...asked } as ExecCall & { operation: O };
    const who = `provider ${this.kind}: ${asked.operation}${asked.cell === undefined ? '' : ` of ${asked.cell}`}`;
    try {
      const { code, output, complaint } = await runCommand({
        command,
        input: `${JSON.stringify(call)}\n`,
        timeoutMs: timeoutS * 1000,
        environment: {
          PATH: process.env['PATH'] ?? '/usr/local/bin:/usr/bin:/bin',
          HOME: process.env['HOME'] ?? '/',
          ...environment,
        },
        workingDirectory,
      });
      if (code === refusedCode) throw new RefusedError(`${who}: ${complaint || 'was refused without a reason'}`);
      if (code !== 0) throw new Error(`ended with exit code ${code}${complaint ? `: ${complaint}` : ''}`);
      return readAnswer(call, output);
    } catch (error) {
      if (error instanceof RefusedError) throw error;
      throw new Error(`${who}: ${command[0]} ${(error as Error).message}`, { cause: error });
    }
  }
}
