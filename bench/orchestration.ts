/**
 * How quickly failovers act, obey and recover, with a real Temporal server, Postgres, control plane, Envoy and workers.
 * `npm run bench:orchestration [-- --json FILE]`; `--rounds N` for other than 5 rounds of latencies over ten services,
 * `--kills N` for other than 6 kills.
 */
import { cpus, loadavg } from 'node:os';
import { performance } from 'node:perf_hooks';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { waitUntil } from '../local/wait';
import { outcomes, workflowTypes } from '../workflows/messages';
import { FailoverFleet, type FleetService } from './failover-fleet';
import { atLeast, atMost, plain, quantile, say, write, type Figure } from './figures';
import { replay, type NamedHistory } from './replay-histories';

/** Judged by few requests, so that it is the orchestration that takes the time. */
const quick = { cooldownS: 0, maxErrorRatio: 0.3, canaryMinRequests: 1, canary: { falseAlarm: 0.2, miss: 0.2 } };
const shops: FleetService[] = Array.from({ length: 10 }, (_, i) => ({
  name: `shop-${i}`,
  cells: 10,
  requestsPerSecond: 20,
  policy: { ...quick, stepBp: 500, stepIntervalS: 0.5, reductionBp: 500, reductionIntervalS: 0.5 },
}));
/** As the policy's defaults have it. */
const orders: FleetService = { name: 'orders', cells: 2, requestsPerSecond: 100, policy: { cooldownS: 5 } };
/** Facts about the fleet are looked at anew once they are older than 10 s: whoever stands armed for longer asks again. */
const armedForMs = 11_000;
const failing = 5;
const stage = (what: string) => process.stdout.write(`${new Date().toISOString().slice(11, 19)} ${what} ...\n`);

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      json: { type: 'string' },
      rounds: { type: 'string', default: '5' },
      kills: { type: 'string', default: '6' },
    },
  });
  stage(`services start; load average ${loadavg()[0]!.toFixed(1)}: what others do on this machine slows this`);
  const figures: Figure[] = [];
  const add = (more: Figure[]) => {
    say(more);
    figures.push(...more);
  };
  let histories: NamedHistory[] = [];
  const fleet = await FailoverFleet.start([...shops, orders]);
  try {
    add(await latencies(fleet, Number(values.rounds)));
    add(await fullFailover(fleet));
    add(await kills(fleet, Number(values.kills)));
    add(await fifty(fleet));
    histories = await historiesOf(fleet);
  } finally {
    await fleet.stop();
  }
  add(await replays(histories));
  if (values.json !== undefined) write(values.json, figures);
  if (figures.some(({ met }) => met === false)) process.exitCode = 1;
}

/** From the signal, or the order, until every proxy has acknowledged the split that follows from it. */
async function latencies(fleet: FailoverFleet, rounds: number): Promise<Figure[]> {
  const firstStep: number[] = [];
  const overrides: number[] = [];
  const since = async (sent: () => Promise<void>, name: string, cell: string, shareIs: (bp: number) => boolean) => {
    const beganMs = performance.now();
    await sent();
    const standIn = (split: Record<string, number>) => split[Object.keys(split).find((c) => c.includes(`${cell}-`))!];
    const { atMs } = await fleet.changeSince(beganMs, name, cell, (c) => shareIs(standIn(c.split) ?? 0));
    return atMs - beganMs;
  };
  const one = async ({ name }: FleetService, cell: string) => {
    const until = (shareIs: (bp: number) => boolean, sent: () => Promise<void>) => since(sent, name, cell, shareIs);
    await fleet.tell(name, cell, 'prepare');
    await fleet.untilArmed(name, cell);
    await pause(armedForMs + Math.random() * 2000);
    firstStep.push(
      await until(
        (bp) => bp > 0,
        () => fleet.tell(name, cell, 'shift'),
      ),
    );
    // By the order's own share, so that no step of the failover's own is taken for it.
    const shareBp = 123;
    const step = { action: 'step', shareBp } as const;
    overrides.push(
      await until(
        (bp) => bp === shareBp,
        () => fleet.order(name, cell, step),
      ),
    );
    fleet.silence(name, cell);
    overrides.push(
      await until(
        (bp) => bp === 0,
        () => fleet.order(name, cell, { action: 'abort' }),
      ),
    );
    await fleet.result(name, cell);
  };
  for (let round = 0; round < rounds; round++) {
    stage(`latencies of ten failovers, round ${round + 1} of ${rounds}`);
    await Promise.all(
      shops.map(async (shop, i) => {
        await pause(i * 300);
        await one(shop, fleet.cellsOf(shop)[0]!);
      }),
    );
  }
  const samples = firstStep.length;
  return [
    plain(`risk crossing to first weight step, p50 of ${samples}`, quantile(firstStep, 0.5), 'ms'),
    atMost('risk crossing to first weight step, p99', quantile(firstStep, 0.99), 'ms', 1000),
    plain(`override to effect, p50 of ${overrides.length}`, quantile(overrides, 0.5), 'ms'),
    atMost('override to effect, p99', quantile(overrides, 0.99), 'ms', 1000),
  ];
}

/** The whole way out and back by the default policy, the risk told every two seconds. */
async function fullFailover(fleet: FailoverFleet): Promise<Figure[]> {
  const cell = 'orders-a';
  stage('a full failover, out and back');
  await fleet.tell('orders', cell, 'shift');
  await fleet.changeSince(0, 'orders', cell, ({ split }) => (split[cell] ?? 0) === 0);
  await fleet.tell('orders', cell, 'clear');
  const { outcome, reason } = await fleet.result('orders', cell);
  if (outcome !== 'drained') throw new Error(`the full failover ended as ${outcome}: ${reason}`);
  const { events } = await fleet.handle('orders', cell).fetchHistory();
  const took = (eventTime(events!.at(-1)!) - eventTime(events![0]!)) / 1000;
  return [plain('a full failover, out and back', took, 's'), atMost('its history', events!.length, 'events', 400)];
}

function eventTime({ eventTime: at }: { eventTime?: { seconds?: unknown; nanos?: number | null } | null }): number {
  return Number(at?.seconds ?? 0) * 1000 + (at?.nanos ?? 0) / 1e6;
}

/** The worker that has the run in hand is killed; until the run's next step has reached the proxies. */
async function kills(fleet: FailoverFleet, times: number): Promise<Figure[]> {
  const cell = 'orders-b';
  stage('small steps of one failover, undisturbed');
  const policy = { ...quick, canaryBp: 1000, canary: { ...quick.canary, maxBp: 1000 }, stepBp: 25, stepIntervalS: 0.5 };
  await fleet.apply([...shops, { ...orders, policy }]);
  await fleet.tell('orders', cell, 'shift');
  await fleet.changeSince(0, 'orders', cell, () => true);
  const undisturbed: number[] = [];
  const next = async (fromMs: number) => (await fleet.changeSince(fromMs, 'orders', cell, () => true)).atMs;
  for (let i = 0, fromMs = await next(performance.now()); i < 4; i++) {
    const atMs = await next(fromMs + 0.001);
    undisturbed.push(atMs - fromMs);
    fromMs = atMs;
  }
  const continued: number[] = [];
  for (let i = 0; i < times; i++) {
    stage(`kill -9 of its worker, ${i + 1} of ${times}`);
    const { events } = await fleet.handle('orders', cell).fetchHistory();
    const pid = Number(
      events!
        .map((e) => e.workflowTaskStartedEventAttributes?.identity)
        .filter(Boolean)
        .at(-1)!
        .split('@')[0],
    );
    const worker = fleet.workers.find((w) => w.pid === pid);
    if (!worker) throw new Error(`no worker has pid ${pid}`);
    await pause(Math.random() * 500);
    const killedMs = performance.now();
    process.kill(pid, 'SIGKILL');
    // A change that was under way at that moment proves nothing: the second one from then on is the run's own going on.
    const first = await next(killedMs);
    continued.push(first - killedMs < 100 ? (await next(first + 0.001)) - killedMs : first - killedMs);
    await waitUntil(() => worker.state === 'serving' && worker.pid !== pid, {
      withinMs: 60_000,
      what: 'the killed worker serves again',
    });
  }
  await fleet.tell('orders', cell, 'clear');
  await fleet.order('orders', cell, { action: 'abort' });
  await fleet.result('orders', cell);
  const keys = (await fleet.store.splitChanges('orders', 1000)).map((c) => c.idempotencyKey);
  return [
    plain('from step to step undisturbed, p50', quantile(undisturbed, 0.5), 'ms'),
    plain(`run continues after kill -9 of its worker, p50 of ${continued.length}`, quantile(continued, 0.5), 'ms'),
    atMost('run continues after kill -9 of its worker, most', Math.max(...continued), 'ms', 5000),
    atMost('changes made twice', keys.length - new Set(keys).size, 'changes', 0),
  ];
}

/** Fifty cells of ten services at once, a worker killed in the middle; then each of them goes its own way. */
async function fifty(fleet: FailoverFleet): Promise<Figure[]> {
  const sick = shops.flatMap((shop) =>
    fleet
      .cellsOf(shop)
      .slice(1, 1 + failing)
      .map((cell, i) => ({ service: shop.name, cell, way: i })),
  );
  stage(`${sick.length} failovers at once`);
  const before = { ...fleet.answered };
  const beganMs = performance.now();
  await Promise.all(sick.map(({ service, cell }) => fleet.tell(service, cell, 'shift')));
  const moved = Promise.all(
    sick.map(({ service, cell }) => fleet.changeSince(beganMs, service, cell, (c) => (c.split[cell] ?? 0) < 1000)),
  );
  await pause(5000);
  process.kill(fleet.workers[0]!.pid!, 'SIGKILL');
  const lastMovedMs = Math.max(...(await moved).map((c) => c.atMs));
  stage('all of them have moved a share, and go their own ways');
  await Promise.all(
    sick.map(async ({ service, cell, way }) => {
      if (way === 0 || way === 1) return fleet.tell(service, cell, 'clear');
      fleet.silence(service, cell);
      if (way === 2) return fleet.kill(cell);
      return fleet.order(service, cell, { action: way === 3 ? 'abort' : 'complete' });
    }),
  );
  const ended = await Promise.all(
    sick.map(({ service, cell }) =>
      Promise.race([
        fleet.result(service, cell).then(({ outcome }) => outcome as string),
        pause(180_000, 'stuck', { ref: false }),
      ]),
    ),
  );
  const tookMs = performance.now() - beganMs;
  const stuck = ended.filter((outcome) => !(outcomes as readonly string[]).includes(outcome)).length;
  const counts = Object.fromEntries([...new Set(ended)].map((o) => [o, ended.filter((e) => e === o).length]));
  process.stdout.write(`fifty at once ended as ${JSON.stringify(counts)}\n`);
  let events = 0;
  let failedTasks = 0;
  let lateTasks = 0;
  for (const { service, cell } of sick) {
    const history = (await fleet.handle(service, cell).fetchHistory()).events!;
    events = Math.max(events, history.length);
    failedTasks += history.filter((e) => e.workflowTaskFailedEventAttributes).length;
    lateTasks += history.filter((e) => e.workflowTaskTimedOutEventAttributes).length;
  }
  const bad = fleet.answered.bad - before.bad;
  const all = bad + fleet.answered.good - before.good;
  return [
    atMost('50 at once: without a named outcome', stuck, 'failovers', 0),
    plain('50 at once: until the last has moved its first share', (lastMovedMs - beganMs) / 1000, 's'),
    plain('50 at once: until the last has ended', tookMs / 1000, 's'),
    atMost('50 at once: workflow tasks that failed', failedTasks, 'tasks', 0),
    plain('50 at once: workflow tasks given to a worker anew', lateTasks, 'tasks'),
    atMost('50 at once: longest history', events, 'events', 400),
    plain('50 at once: requests that failed, of the callers', (100 * bad) / Math.max(1, all), '%'),
  ];
}

async function historiesOf(fleet: FailoverFleet): Promise<NamedHistory[]> {
  const histories: NamedHistory[] = [];
  const query = `WorkflowType = '${workflowTypes.predictiveFailover}'`;
  for await (const { workflowId, runId } of fleet.client.workflow.list({ query })) {
    histories.push({ workflowId, history: await fleet.client.workflow.getHandle(workflowId, runId).fetchHistory() });
  }
  return histories;
}

/** Every history that was made here, once all is quiet; one process for each core. */
async function replays(histories: readonly NamedHistory[]): Promise<Figure[]> {
  stage(`${histories.length} histories are replayed`);
  const events = histories.reduce((sum, { history }) => sum + history.events!.length, 0);
  const s = (await replay(histories, cpus().length)) / 1000;
  const average = Math.round(events / histories.length);
  return [
    plain(`replayed: histories of ${average} events on average`, histories.length, 'histories'),
    plain(`replay, ${cpus().length} processes`, events / s, 'events/s'),
    atLeast(`replay, ${cpus().length} processes`, histories.length / s, 'histories/s', 100),
  ];
}

main().catch((error: unknown) => {
  process.stderr.write(
    `bench:orchestration: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
  );
  process.exitCode = 1;
});
