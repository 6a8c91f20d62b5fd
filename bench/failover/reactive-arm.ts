/** The arms that only react: (a) to (d), all behind one Envoy of their own. */
import type { Instance } from '../../blueprints/schema';
import { addressesOf, untilReady } from '../../cells/life/ready';
import { Arm, type ArmContext } from './arm';
import type { ArmName } from './arms';
import { letters, type Letter } from './deployment';
import { writeHosts, type ReactiveService } from './reactive-envoy';

const lookEveryMs = 500;
/** What an alert on the objective waits for. */
const alertShare = 0.05;
const alertSeconds = 3;

export class ReactiveArm extends Arm {
  private readonly hosts: Instance[] = [];
  private isWatching = false;
  private badSeconds = 0;
  private createdMs: number | null = null;
  private making: Promise<void> = Promise.resolve();
  private timer: NodeJS.Timeout | undefined;

  constructor(
    name: ArmName,
    context: ArmContext,
    private readonly envoy: { dir: string; adminPort: number },
  ) {
    super(name, context);
  }

  protected override get declared(): readonly Letter[] {
    return this.name === 'c' ? letters : super.declared;
  }

  /** What Envoy is to know of it. */
  get behindEnvoy(): ReactiveService {
    const { port, play } = this.context;
    const tuning = this.name === 'a' ? 'usual' : 'best';
    return { name: this.service, port, deployment: play.deployment, tuning, cells: this.declared.length };
  }

  async start(): Promise<void> {
    const started = await Promise.all(this.declared.map((letter) => this.startCell(letter)));
    this.hosts.push(...started.flat());
    writeHosts(this.envoy.dir, this.service, this.hosts);
  }

  private async startCell(letter: Letter): Promise<Instance[]> {
    const { provider } = this.context.ground;
    const cell = `${this.service}-${letter}`;
    const spec = await this.blueprint(letter);
    await provider.ensure({ cell, service: this.service, owner: 'operator', blueprint: spec });
    const version = { name: cell, version: 1, spec };
    return addressesOf(await untilReady(provider, cell, version));
  }

  protected begin(): void {
    if (this.name !== 'd') return;
    this.isWatching = true;
    this.timer = setInterval(() => void this.lookAtHosts(), lookEveryMs);
  }

  protected override seen({ requests, bad }: { requests: number; bad: number }): void {
    this.badSeconds = bad >= alertShare * Math.max(1, requests) ? this.badSeconds + 1 : 0;
    if (this.badSeconds >= alertSeconds) this.create();
  }

  /** A host that Envoy has given up is a failure that was seen. */
  private async lookAtHosts(): Promise<void> {
    const url = `http://127.0.0.1:${this.envoy.adminPort}/stats?format=json&filter=^cluster\\.${this.service}\\.(membership|outlier_detection.ejections_active)`;
    try {
      const { stats } = (await (await fetch(url)).json()) as { stats: { name?: string; value?: number }[] };
      const value = (name: string): number =>
        stats.find((stat) => stat.name === `cluster.${this.service}.${name}`)?.value ?? 0;
      if (value('membership_healthy') < value('membership_total')) this.create();
    } catch {
      // The next look makes up for it.
    }
  }

  /** The third cell, once. */
  private create(): void {
    if (!this.isWatching) return;
    this.isWatching = false;
    this.createdMs = Date.now();
    this.making = this.startCell('c').then(
      (instances) => {
        this.hosts.push(...instances);
        writeHosts(this.envoy.dir, this.service, this.hosts);
      },
      (error: Error) => void process.stderr.write(`${this.service}: the third cell failed: ${error.message}\n`),
    );
  }

  protected async account(endMs: number) {
    const fromMs = this.name === 'c' ? this.beganMs : this.createdMs;
    return { standbyS: fromMs === null ? 0 : (endMs - fromMs) / 1000, falseShifts: 0 };
  }

  async stop(): Promise<void> {
    this.isWatching = false;
    clearInterval(this.timer);
    await this.making;
  }
}
