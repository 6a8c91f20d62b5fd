/** The four acts of the demo: a leak to death, a leak that stops, the same death with prediction switched off, and a leak in the cell that owns the data. */
import { Act, baselineS } from './act';
import { demoMemoryLimitMib, ledgerMemoryLimitMib, ledgerSloMs } from './documents';
import { RecordingCallers, verdictSentence } from './recording-callers';
import type { ActReport } from './report';
import type { Stage } from './stage';

/** Fills the heap of an instance in well under a minute; the same in every act. */
const leakBytesPerSecond = 1.2 * 1024 * 1024;
const leakToDeathLimitS = 100;

async function baseline(act: Act, cells = 'Two cells of two instances each carry half of the load'): Promise<void> {
  act.tell(`${act.plan.title}. ${cells}; the first ${baselineS} s are quiet.`);
  await act.seconds(baselineS);
}

async function leak(act: Act, stage: Stage, bytesPerSecond: number, limitMib = demoMemoryLimitMib): Promise<void> {
  // On a busy machine it may have died of the leak before it could be told to stop.
  const told = await stage.setLeak(act.source, bytesPerSecond).then(
    () => true,
    () => false,
  );
  if (!told) return act.tell(`${act.source} does not answer: its leak is as it was.`);
  act.tell(
    bytesPerSecond > 0
      ? `${act.source} begins to leak ${(bytesPerSecond / 1024 / 1024).toFixed(1)} MiB a second in each instance (limit ${limitMib} MiB).`
      : `The leak in ${act.source} stops, and what had leaked is let go.`,
  );
}

/** What somebody does while an act is played; the tests kill processes here. */
export type Meanwhile = (act: Act) => Promise<void>;

/** Act 1: predicted, prepared, shifted, and when the primary really dies, completed. Returns when the failover is over. */
export async function leakToDeath(stage: Stage, meanwhile?: Meanwhile): Promise<ActReport> {
  const act = await Act.begin(stage, {
    name: 'leak-to-death',
    title: 'Act 1: a leak to death, predicted',
    service: 'orders',
  });
  await baseline(act);
  await leak(act, stage, leakBytesPerSecond);
  const [, died] = await Promise.all([
    meanwhile?.(act),
    act.until('the primary died', leakToDeathLimitS, () => act.primaryDied),
  ]);
  if (died) await act.until('the failover had an outcome', 30, () => act.hasOutcome);
  await act.seconds(5);
  const last = act.dossiers.at(-1);
  return act.end(last?.outcome ?? 'no failover', last?.reason ?? 'no failover was started');
}

/** Act 2: the leak stops, traffic returns, the synthetic cell rests; the next prediction finds it there. */
export async function leakThatStops(stage: Stage): Promise<ActReport> {
  const act = await Act.begin(stage, {
    name: 'leak-that-stops',
    title: 'Act 2: a leak that stops, twice',
    service: 'carts',
  });
  await baseline(act);
  await leak(act, stage, leakBytesPerSecond);
  await act.until('the synthetic cell carried more than its canary share', 60, () => act.phase === 'shifting');
  await leak(act, stage, 0);
  await act.until('traffic was back and the synthetic cell idle', 60, () => act.hasOutcome);
  const first = act.dossiers.at(-1);
  await leak(act, stage, leakBytesPerSecond);
  await act.until('the next prediction had a synthetic cell armed', 45, () => act.armedAfterS.length >= 2);
  await leak(act, stage, 0);
  const order = { action: 'drain', by: 'operator', reason: 'the leaking release was rolled back' } as const;
  act.tell(`A person steps in: override ${order.action} by ${order.by}, because ${order.reason}.`);
  await stage.override(act.plan.service, act.source, order);
  await act.until('the second failover had ended too', 45, () => act.dossiers.length >= 2 && act.hasOutcome);
  return act.end(first?.outcome ?? 'no failover', first?.reason ?? 'no failover was started');
}

/** Act 3: the failure of act 1 with prediction switched off, on the same Envoy with its reactive layer on. */
export async function leakUnpredicted(stage: Stage): Promise<ActReport> {
  const act = await Act.begin(stage, {
    name: 'leak-unpredicted',
    title: 'Act 3: the same death, unpredicted',
    service: 'parcels',
  });
  await baseline(act);
  await leak(act, stage, leakBytesPerSecond);
  await act.until('the primary died', leakToDeathLimitS, () => act.primaryDied);
  await act.seconds(15);
  return act.end(
    'primary died',
    "Prediction is switched off (autonomy: observe): Envoy's health checks, ejection and retries are on their own.",
  );
}

/** So few callers, with such pauses, ask about 60 times a second: every write is a Kafka transaction. */
const ledgerCallers = { callers: 6, pauseMs: 160 };
const ledgerLeakBytesPerSecond = 3 * 1024 * 1024;

/** Act 4: act 1 with a service that keeps data. Its primary owns the data: the right to write goes over before it dies. */
export async function leakOfTheOwner(stage: Stage): Promise<ActReport> {
  const service = 'ledger';
  const callers = new RecordingCallers({
    ...{ url: stage.serviceUrl(service), ...ledgerCallers },
    ...{ sloMs: ledgerSloMs, seed: 7 },
  });
  const act = await Act.begin(stage, {
    ...{ name: 'leak-of-the-owner', title: 'Act 4: a leak in the cell that owns the data', service },
    ...{ callers: () => callers, readyPath: '/healthz' },
  });
  await baseline(
    act,
    `${act.source} owns the data and is the only one to write it; callers append and read through Envoy and write down each answer`,
  );
  await leak(act, stage, ledgerLeakBytesPerSecond, ledgerMemoryLimitMib);
  const died = await act.until('the owner died', leakToDeathLimitS, () => act.primaryDied);
  if (died) await act.until('the failover had an outcome', 30, () => act.hasOutcome);
  await act.seconds(3);
  const data = await callers.verdict();
  act.tell(verdictSentence(data));
  const last = act.dossiers.at(-1);
  return act.end(last?.outcome ?? 'no failover', last?.reason ?? 'no failover was started', data);
}
