/** One act on the stage: two cells under steady load, watched from outside, until its script has run. */
import type { Client } from '@temporalio/client';
import { failoverWorkflowId, queryNames, type Dossier, type Phase } from '../../workflows/messages';
import type { RiskEvent, Score } from '../../prediction/contracts';
import { startDeclaredCell } from '../../cells/source-cells';
import { OpenLoopLoad, type Load, type LoadSecond } from '../load';
import type { DataVerdict } from './recording-callers';
import { demoPaths, demoRatePerSecond, demoSloMs } from './documents';
import type { ActReport, ActSeries, PhaseDuration } from './report';
import type { EnvoyCounters, Stage } from './stage';

export interface ActPlan {
  name: string;
  title: string;
  service: string;
  /** Who asks the service all the time; those of a catalogue where nothing is said. */
  callers?: (url: string) => Load;
  /** What Envoy answers once the service can be called. @default an item of the catalogue */
  readyPath?: string;
}

/** Seconds of quiet load first, so that the cell's own baseline is known. */
export const baselineS = 15;

/** How often the act looks at the split and the failover, and at the source's processes. */
const watchEveryMs = 200;
const deathWatchEveryMs = 50;
/** A failover that nobody can be asked about (its worker was just killed) is asked about again at the next look. */
const dossierTimeoutMs = 1500;

export class Act {
  readonly source: string;
  readonly series: ActSeries = { load: [], risk: [], split: [], phases: [], events: [] };
  readonly armedAfterS: ActReport['armedAfterS'] = [];
  private readonly load: Load;
  private readonly begun = Date.now();
  private readonly seenRuns = new Map<string, Dossier>();
  private riskSince: number | null = null;
  private deathMs: number | null = null;
  private readonly timers: NodeJS.Timeout[] = [];
  private watching: Promise<void> = Promise.resolve();
  private isOver = false;
  private readonly stopScores: () => void;

  private constructor(
    readonly plan: ActPlan,
    private readonly stage: Stage,
    private readonly thresholds: ActReport['thresholds'],
    private readonly horizonS: number,
    private readonly sloMs: number,
    private readonly envoyBefore: EnvoyCounters,
    private readonly sourcePids: readonly number[],
  ) {
    this.source = `${plan.service}-a`;
    this.load = (plan.callers ?? readers)(stage.serviceUrl(plan.service));
    this.stopScores = stage.scores.subscribe(this.source, (score) => this.hearScore(score));
  }

  /** Starts the service's two cells, waits until Envoy serves them, and begins the load. */
  static async begin(stage: Stage, plan: ActPlan): Promise<Act> {
    const { policy, slo } = await stage.specOf(plan.service);
    const cells = [`${plan.service}-a`, `${plan.service}-b`];
    await Promise.all(cells.map((cell) => startDeclaredCell(stage.provider, stage.store, cell)));
    // A synthetic cell preloads from its peers; the first cells of a catalogue have none and load their own data.
    if (!plan.callers) await Promise.all(cells.map((cell) => stage.post(cell, '/admin/preload', {})));
    await stage.envoyServes(plan.service, plan.readyPath ?? '/items/1');
    const { instances } = await stage.provider.observe(`${plan.service}-a`);
    const pids = instances.flatMap(({ pid }) => pid ?? []);
    const thresholds = { prepare: policy.prepare.enter, shift: policy.shift.enter };
    const counters = await stage.envoyCounters(plan.service);
    const act = new Act(plan, stage, thresholds, policy.horizonS, slo.latencyMs, counters, pids);
    stage.beforeClose(() => act.abandon());
    act.load.start();
    act.timers.push(
      setInterval(() => act.lookForDeath(), deathWatchEveryMs),
      setInterval(() => act.look(), watchEveryMs),
    );
    return act;
  }

  /** Seconds since the act began. */
  get t(): number {
    return (Date.now() - this.begun) / 1000;
  }

  get primaryDied(): boolean {
    return this.deathMs !== null;
  }

  /** Failovers of the source so far in this act, oldest first. */
  get dossiers(): Dossier[] {
    return [...this.seenRuns.values()];
  }

  /** Whether the newest failover has come to its outcome. */
  get hasOutcome(): boolean {
    return (this.dossiers.at(-1)?.outcome ?? null) !== null;
  }

  get phase(): Phase | null {
    return this.series.phases.at(-1)?.phase ?? null;
  }

  tell(text: string, t = this.t): void {
    this.series.events.push({ t, text });
    this.stage.tell(`${t.toFixed(1).padStart(6)} s  ${text}`);
  }

  /** Resolves when the condition holds; after the limit the act says so and goes on, since its report must be honest. */
  async until(what: string, limitS: number, condition: () => boolean): Promise<boolean> {
    const deadline = Date.now() + limitS * 1000;
    while (!condition()) {
      if (this.isOver) throw new Error(`Act ${this.plan.name} was ended while it waited until ${what}.`);
      if (Date.now() > deadline) {
        this.tell(`Waited ${limitS} s in vain until ${what}.`);
        return false;
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return true;
  }

  async seconds(s: number): Promise<void> {
    const untilMs = Date.now() + s * 1000;
    await this.until(`${s} s had passed`, s + 1, () => Date.now() >= untilMs);
  }

  /** Stops watching and loading, without a report. */
  abandon(): void {
    if (this.isOver) return;
    this.isOver = true;
    for (const timer of this.timers) clearInterval(timer);
    this.stopScores();
    this.load.stop().catch(() => undefined);
  }

  /** Ends the load, reads Envoy's counters and closes the books; `data` is what became of the service's data. */
  async end(outcome: string, reason: string, data?: DataVerdict): Promise<ActReport> {
    const { totals, seconds, failures } = await this.load.stop();
    this.series.load.push(...seconds.map((second) => loadSecond(second, this.begun)));
    this.look();
    await this.watching;
    this.abandon();
    this.series.events.sort((a, b) => a.t - b.t);
    const envoy = await this.stage.envoyCounters(this.plan.service);
    for (const counter of Object.keys(envoy) as (keyof EnvoyCounters)[]) envoy[counter] -= this.envoyBefore[counter];
    return {
      name: this.plan.name,
      title: this.plan.title,
      service: this.plan.service,
      outcome,
      reason,
      requests: totals.requests,
      failed: totals.failed,
      failures,
      overSlo: totals.overSlo,
      p99Ms: totals.p99Ms ?? 0,
      warningS: this.deathMs === null ? null : this.riskSince === null ? 0 : (this.deathMs - this.riskSince) / 1000,
      movedBeforeDeathBp: await this.movedBeforeDeathBp(),
      phases: this.phaseDurations(),
      envoy,
      armedAfterS: this.armedAfterS,
      thresholds: this.thresholds,
      sloMs: this.sloMs,
      ...(data && { data }),
      series: this.series,
    };
  }

  private hearScore(score: Score): void {
    const probability = score.probability[String(this.horizonS)];
    if (probability === undefined) return;
    const health = score.health === 'unknown' ? null : score.health;
    this.series.risk.push({ t: (Date.parse(score.ts) - this.begun) / 1000, probability, health });
  }

  /** One look at split and failover after the other; one that fails (Postgres is away) is made up for by the next. */
  private look(): void {
    const both = async (): Promise<void> => {
      await Promise.all([this.watchFailover(), this.watchSplit()]);
    };
    this.watching = this.watching.then(both).catch(() => undefined);
  }

  /** Death is a process that is gone; an instance that only answers slowly is not dead. */
  private lookForDeath(): void {
    if (this.deathMs !== null || this.sourcePids.every(isAlive)) return;
    this.deathMs = Date.now();
    const t = this.t;
    this.watching = this.watching
      .then(async () => {
        const { instances } = await this.stage.provider.observe(this.source);
        const dead = instances.find((i) => i.phase === 'failed');
        const how = dead?.reason?.split(';')[0] ?? 'its process is gone';
        const moved = (await this.movedBeforeDeathBp()) ?? 0;
        this.tell(
          `${dead?.name ?? this.source} died (${how}). ${moved / 100} % of all traffic had left ${this.source} by then.`,
          t,
        );
      })
      .catch(() => undefined);
  }

  /** What of the source's safe share had been commanded elsewhere when it died, by the record of changes. */
  private async movedBeforeDeathBp(): Promise<number | null> {
    const { deathMs } = this;
    if (deathMs === null) return null;
    const { safeSplit } = await this.stage.specOf(this.plan.service);
    const safeBp = safeSplit[this.source] ?? 0;
    const changes = await this.stage.store.splitChanges(this.plan.service);
    const last = changes.find(({ at }) => Date.parse(at) <= deathMs);
    return last ? safeBp - (last.split.find(({ cell }) => cell === this.source)?.shareBp ?? 0) : 0;
  }

  private async watchSplit(): Promise<void> {
    const state = await this.stage.store.traffic(this.plan.service);
    if (!state) return;
    const shares = Object.fromEntries(state.split.map((s) => [s.cell, s.shareBp]));
    const last = this.series.split.at(-1);
    if (last && JSON.stringify(last.shares) === JSON.stringify(shares)) return;
    this.series.split.push({ t: last ? this.t : 0, shares });
    if (!last) return;
    const words = state.split.map(
      (s) => `${s.cell} ${s.shareBp / 100} %${s.shareBp === 0 && s.coverInstances > 0 ? ' (cover)' : ''}`,
    );
    this.tell(`Split, epoch ${state.epoch}: ${words.join(', ')}.`);
  }

  private async watchFailover(): Promise<void> {
    const dossier = await readDossier(this.stage.temporal, this.plan.service, this.source);
    if (!dossier || Date.parse(dossier.startedAt) < this.begun) return;
    const before = this.seenRuns.get(dossier.runId);
    this.seenRuns.set(dossier.runId, dossier);
    if (!before?.firstRisk && dossier.firstRisk) this.tellPrediction(dossier.firstRisk);
    for (const entry of dossier.entries.slice(before?.entries.length ?? 0)) {
      this.tell(entry.what);
      const why = entry.evidence?.['why'];
      // What the data gate and the handover did and saw before the share moved.
      if (typeof why === 'string' && why.includes('; data: '))
        this.tell(`Before that, the data: ${why.split('; data: ')[1]}`);
    }
    for (const step of dossier.phaseTimes.slice(before?.phaseTimes.length ?? 0)) {
      const t = (Date.parse(step.at) - this.begun) / 1000;
      this.series.phases.push({ t, phase: step.phase });
      if (step.phase === 'armed') {
        const seconds = (Date.parse(step.at) - Date.parse(dossier.startedAt)) / 1000;
        this.armedAfterS.push({ seconds, reused: dossier.entries.some((e) => e.evidence?.['reused'] === true) });
      }
    }
  }

  private tellPrediction({ at, probability, timeToFailureS, drivers }: RiskEvent): void {
    this.riskSince ??= Date.parse(at);
    const when = timeToFailureS.p50 === null ? '' : `, likely in ${timeToFailureS.p50.toFixed(0)} s`;
    const why = drivers[0] ? ` Why: ${drivers[0].text}.` : '';
    this.tell(`${this.source} is predicted to fail: probability ${(100 * probability).toFixed(0)} %${when}.${why}`);
  }

  private phaseDurations(): PhaseDuration[] {
    return this.series.phases.map((p, i) => ({
      phase: p.phase,
      seconds: (this.series.phases[i + 1]?.t ?? this.t) - p.t,
    }));
  }
}

/** An even stream of readers: the load of a catalogue. */
function readers(url: string): Load {
  return new OpenLoopLoad({
    ...{ urls: url, paths: demoPaths, ratePerSecond: demoRatePerSecond },
    ...{ sloMs: demoSloMs, timeoutMs: 5000, seed: 7 },
  });
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

function loadSecond({ atMs, ...figures }: LoadSecond, begunMs: number): ActSeries['load'][number] {
  return { t: Math.max(0, (atMs - begunMs) / 1000), ...figures };
}

/** The dossier of the newest run for a source cell, or null while there is none or no worker to answer. */
async function readDossier(client: Client, service: string, cell: string): Promise<Dossier | null> {
  try {
    const handle = client.workflow.getHandle(failoverWorkflowId(service, cell));
    return await client.withDeadline(Date.now() + dossierTimeoutMs, () => handle.query<Dossier>(queryNames.dossier));
  } catch {
    return null;
  }
}
