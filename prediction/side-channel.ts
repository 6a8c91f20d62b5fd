/** What is published beside the scores, for people and for judging models: never waited for, never insisted on. */
import type { Logger } from 'pino';
import type { Counters } from './counters';
import { psiWarning, type DriftReport, type DriftWatch } from './drift';
import { messageOf } from './insist';
import type { ScorePublisher } from './publisher';
import type { Shadow, ShadowDivergence, ShadowScore } from './shadow';

/** How a model does (topic `understudy.model-health`, compacted, keyed by model). */
export interface ModelHealth {
  model: string;
  /** ISO 8601, event time. */
  ts: string;
  drift: DriftReport;
  /** Of the challenger, if there is one. */
  shadow: ShadowDivergence | null;
}

/** An expected number of failures this unlikely to lie beside the observed one is worth a warning. */
const unlikely = 0.01;

export class SideChannel {
  private busy = false;

  constructor(
    private readonly publisher: ScorePublisher,
    private readonly counters: Counters,
    private readonly log: Logger,
    private readonly model: string,
    private readonly drift: DriftWatch | undefined,
    private readonly shadow: Shadow | undefined,
  ) {}

  /** While an earlier lot is on its way, this one is left out: a slow broker must not fill the memory. */
  shadowScores(scores: readonly ShadowScore[]): void {
    const { publisher, counters } = this;
    if (scores.length === 0 || !publisher.shadowScores) return;
    if (this.busy) return counters.add('shadow.dropped', scores.length);
    this.busy = true;
    publisher
      .shadowScores(scores)
      .then(
        () => counters.add('shadow.scores', scores.length),
        () => counters.add('shadow.failed'),
      )
      .finally(() => (this.busy = false));
  }

  /** At each tick; says something when a window of the drift watch has become full. */
  modelHealth(tickMs: number): void {
    const drift = this.drift?.report(tickMs);
    if (!drift) return;
    const { model, log, counters } = this;
    const health: ModelHealth = {
      model,
      ts: new Date(tickMs).toISOString(),
      drift,
      shadow: this.shadow?.divergence() ?? null,
    };
    const { observed, expected, chance } = drift.failures;
    const worst = drift.worst[0];
    const sentence =
      `${drift.shifted} of ${drift.features} features of ${model} are spread otherwise than in training ` +
      `(PSI above ${psiWarning}${worst ? `; most: ${worst.feature}, ${worst.psi}` : ''}); ` +
      `${observed} failures seen, ${expected} expected`;
    if (drift.shifted > 0 || chance < unlikely) log.warn({ ...health }, sentence);
    else log.info({ ...health }, sentence);
    this.publisher.modelHealth?.(health).catch((error: unknown) => {
      counters.add('model-health.failed');
      log.debug({ reason: messageOf(error) }, 'the state of the model could not be published');
    });
  }
}
