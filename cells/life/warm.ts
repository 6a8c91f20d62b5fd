/** Warms a cell by its blueprint's plan, and says whether it may be armed: warm, and as protected as its source. */
import type { CellRecord } from '../../blueprints/records';
import type { ProtectionReader } from '../protection/read-back';
import { isOfGivenLength } from '../warm-up/step';
import { neighboursOf } from '../warm-up/neighbours';
import type { ReadTraffic } from '../warm-up/service-traffic';
import { warmUp, type WarmUpEvidence } from '../warm-up/warm-up';
import { beating, type Heartbeat } from './heartbeat';
import { lookAtSource } from './look';
import type { CellMakings } from './makings';

export interface WarmOptions {
  heartbeat: Heartbeat;
  signal: AbortSignal | undefined;
  readTraffic: ReadTraffic | undefined;
  protectionReaders: Readonly<Record<string, ProtectionReader>>;
}

export async function warmCell(
  makings: CellMakings,
  cell: CellRecord,
  { heartbeat, signal, readTraffic, protectionReaders }: WarmOptions,
): Promise<WarmUpEvidence> {
  const { store, identities } = makings;
  const { blueprint } = await makings.of(cell);
  // A warm-up that is repeated must not take an armed or serving cell back in its life.
  const isBefore = cell.state === 'provisioning' || cell.state === 'idle';
  const current = await store.updateCell(cell.name, isBefore ? { state: 'warming' } : {}, cell.owner);
  const spec = (await store.service(cell.service))?.spec;
  const path = spec?.healthCheck.path ?? '/healthz';
  const reached = (one: CellRecord) => identities.reached(one);
  const { peers, isSourceDead } = await neighboursOf(current, await store.cells(cell.service), path, reached);
  const run = warmUp({
    plan: blueprint.spec.warmUp,
    instances: await reached(current),
    peers,
    isRescue: isSourceDead,
    progress: heartbeat,
    ...(spec &&
      readTraffic && {
        callers: { read: readTraffic, mirrorPercent: spec.mirror.percent, canaryBp: spec.policy.canaryBp },
      }),
    ...(signal && { signal }),
  });
  const evidence = await beating(heartbeat, `warming ${cell.name}`, run);
  const { protection, drift } = await lookAtSource(makings, protectionReaders, current, blueprint);
  const weaker = protection.weaker.map(({ instance, text }) => `weaker protection: ${instance} ${text}`);
  const isWarm = evidence.warm && weaker.length === 0;
  const ofItsOwn = evidence.steps.filter(({ kind }) => !isOfGivenLength(kind));
  const warmedUp = { tookMs: ofItsOwn.reduce((sumMs, { tookMs }) => sumMs + tookMs, 0), isWarm };
  // What was measured is worth no failover: a time that cannot be kept now is not kept.
  await store.updateCell(cell.name, { warmedUp }, cell.owner).catch(() => undefined);
  return {
    ...evidence,
    protection,
    drift: drift.map(({ path, text }) => `${path}: ${text}`),
    warm: isWarm,
    reasons: [...weaker, ...evidence.reasons],
  };
}
