/** The arms that foresee: (e) Understudy as it is, (f) the same told by a signal what is really going to fail, and when. */
import { startDeclaredCell } from '../../cells/source-cells';
import type { Document } from '../../blueprints/schema';
import type { RiskEvent } from '../../prediction/contracts';
import { TemporalNotifier } from '../../prediction/temporal-notifier';
import { failoverWorkflowId, queryNames, type Dossier, type Phase } from '../../workflows/messages';
import { Arm, type ArmContext } from './arm';
import type { ArmName } from './arms';
import { laidToRest, serviceDocuments } from './deployment';
import type { ArmResult, UnderstudyResult } from './result';
import { TelemetryAgent } from './telemetry-agent';

/** Perfect foresight looks this far ahead: enough for every plan, less than most real faults announce. */
const foresightS = 45;
const tellEveryMs = 2000;
const storyLines = 40;

export class UnderstudyArm extends Arm {
  private documents: Document[] = [];
  private agent: TelemetryAgent | undefined;
  private timer: NodeJS.Timeout | undefined;
  private stopScores: (() => void) | undefined;
  private readonly risk: { atMs: number; probability: number }[] = [];

  constructor(name: ArmName, context: ArmContext) {
    super(name, context);
  }

  async start(): Promise<void> {
    const { ground, play, port } = this.context;
    const { store, scores } = ground.understudy;
    const blueprints = await Promise.all(this.declared.map((letter) => this.blueprint(letter)));
    this.documents = serviceDocuments(play.deployment, this.service, port, blueprints);
    await store.apply(this.documents);
    await Promise.all(this.declared.map((l) => startDeclaredCell(ground.provider, store, `${this.service}-${l}`)));
    this.stopScores = scores.subscribe(this.source, (score) => {
      const probability = score.probability['60'];
      if (probability !== undefined) this.risk.push({ atMs: Date.parse(score.ts), probability });
    });
    if (this.name === 'e') {
      this.agent = new TelemetryAgent({
        brokers: ground.stack.settings.kafka.brokers,
        stateDir: ground.stack.settings.processProvider.stateDir,
        run: this.context.run,
        service: this.service,
        deployment: play.deployment,
      });
    }
  }

  protected begin(): void {
    const { failureAtS } = this.context.play;
    if (this.name !== 'f' || failureAtS === null) return;
    const { temporal } = this.context.ground.understudy;
    const { failoverTaskQueue } = this.context.ground.stack.settings.temporal;
    const notifier = new TemporalNotifier(temporal, failoverTaskQueue);
    const failsAtMs = this.beganMs + failureAtS * 1000;
    const fromMs = Math.max(this.beganMs + 2000, failsAtMs - foresightS * 1000);
    const tell = (): void => {
      if (Date.now() < fromMs) return;
      notifier.notify(this.foreseen(fromMs, failsAtMs)).catch((error: Error) => {
        process.stderr.write(`${this.service}: the risk was not told: ${error.message}\n`);
      });
    };
    this.timer = setInterval(tell, tellEveryMs);
  }

  private foreseen(sinceMs: number, failsAtMs: number): RiskEvent {
    const nowMs = Date.now();
    const left = Math.max(0, (failsAtMs - nowMs) / 1000);
    const episodeId = `${this.source}@${new Date(sinceMs).toISOString()}`;
    return {
      eventId: `${episodeId}#${nowMs}`,
      episodeId,
      service: this.service,
      cell: this.source,
      at: new Date(nowMs).toISOString(),
      level: 'shift',
      probability: 1,
      horizonS: 60,
      health: 0,
      timeToFailureS: { p10: left, p50: left, p90: left },
      trust: 1,
      drivers: [],
      model: 'foresight',
    };
  }

  protected async account(endMs: number): Promise<Pick<ArmResult, 'standbyS' | 'falseShifts' | 'understudy'>> {
    const { play } = this.context;
    const dossiers = await this.dossiers();
    const isRight = ({ cell }: Dossier): boolean => play.fault !== 'look-alikes' && cell === this.source;
    const shifted = new Set(dossiers.filter((d) => !isRight(d) && d.steps.length > 0).map((d) => d.cell));
    return {
      standbyS: standbyMs(dossiers, endMs) / 1000,
      falseShifts: shifted.size,
      understudy: this.told(
        dossiers.filter(({ cell }) => cell === this.source),
        dossiers,
      ),
    };
  }

  /** Of all runs of both cells: those that ended are in the store, one that goes on answers itself. */
  private async dossiers(): Promise<Dossier[]> {
    const { store, temporal } = this.context.ground.understudy;
    const found = new Map<string, Dossier>();
    for (const dossier of await store.dossiers(1000)) {
      if (dossier.service === this.service) found.set(dossier.runId, dossier);
    }
    for (const letter of this.declared) {
      const handle = temporal.workflow.getHandle(failoverWorkflowId(this.service, `${this.service}-${letter}`));
      const now = await temporal
        .withDeadline(Date.now() + 5000, () => handle.query<Dossier>(queryNames.dossier))
        .catch(() => null);
      if (now) found.set(now.runId, now);
    }
    return [...found.values()].sort((a, b) => (a.startedAt < b.startedAt ? -1 : 1));
  }

  private told(own: Dossier[], all: Dossier[]): UnderstudyResult {
    const atS = (iso: string | null | undefined): number | null =>
      iso ? Math.round((Date.parse(iso) - this.beganMs) / 100) / 10 : null;
    const entered = (phase: Phase): string | undefined =>
      own.flatMap((d) => d.phaseTimes).find((p) => p.phase === phase)?.at;
    const steps = own.flatMap((d) => d.steps);
    const evacuated = steps.find(({ split }) => (split[this.source] ?? 0) === 0);
    const risks = this.risk.filter(({ atMs }) => atMs >= this.beganMs);
    const riskPerS: (number | null)[] = [];
    for (const { atMs, probability } of risks) {
      riskPerS[Math.round((atMs - this.beganMs) / 1000)] = Math.round(100 * probability) / 100;
    }
    const lines = all.flatMap((d) =>
      d.entries.map(({ at, phase, what }) => ({ at, text: `${atS(at)} s ${d.cell.slice(-1)} ${phase}: ${what}` })),
    );
    return {
      riskAtS: atS(own.find((d) => d.firstRisk)?.firstRisk?.at),
      armedAtS: atS(entered('armed')),
      firstShiftAtS: atS(steps[0]?.at),
      evacuatedAtS: atS(evacuated?.at),
      outcome: own.at(-1)?.outcome ?? own.at(-1)?.phase ?? null,
      peakRisk: risks.length > 0 ? Math.max(...risks.map(({ probability }) => probability)) : null,
      riskPerS: Array.from(riskPerS, (p) => p ?? null),
      story: lines
        .sort((x, y) => (x.at < y.at ? -1 : 1))
        .map(({ text }) => text.slice(0, 260))
        .slice(0, storyLines),
    };
  }

  async stop(): Promise<void> {
    clearInterval(this.timer);
    this.stopScores?.();
    await this.agent?.stop();
    if (this.documents.length === 0) return;
    const { store, temporal } = this.context.ground.understudy;
    // Nobody is to take up again what this run leaves behind.
    await store.apply(this.documents.map(laidToRest));
    for (const letter of this.declared) {
      const handle = temporal.workflow.getHandle(failoverWorkflowId(this.service, `${this.service}-${letter}`));
      await handle.terminate('the run of the bench is over').catch(() => undefined);
    }
  }
}

/** From the making of each synthetic cell to the end. */
function standbyMs(dossiers: Dossier[], endMs: number): number {
  const begun = new Map<string, number>();
  for (const { syntheticCell, phaseTimes } of dossiers) {
    const at = phaseTimes.find(({ phase }) => phase === 'provisioning')?.at;
    if (at === undefined) continue;
    const name = syntheticCell ?? 'one that was never finished';
    begun.set(name, Math.min(begun.get(name) ?? Infinity, Date.parse(at)));
  }
  return [...begun.values()].reduce((sum, fromMs) => sum + Math.max(0, endMs - fromMs), 0);
}
