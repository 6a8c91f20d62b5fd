/** What the decision about a service's idle cells is made from, read from the Configuration Data Store. */
import { standbyCellHours } from '../activities/survey-fleet';
import type { CellRecord, CellRest, ServiceRecord } from '../blueprints/records';
import type { Policy } from '../blueprints/schema';
import type { ConfigurationStore } from '../blueprints/store';
import { chooseRest } from './choose-rest';
import { decidePool, type PoolQuestion } from './pool-economics';
import type { PoolFacts } from './pool-need';

const hourMs = 3_600_000;
const rememberedMs = 30 * 24 * hourMs;

export async function poolQuestion(
  store: Pick<ConfigurationStore, 'cells' | 'pastFailovers' | 'blueprintAgeMs' | 'blueprint' | 'cellStarts'>,
  { name, spec }: ServiceRecord,
  nowMs = Date.now(),
): Promise<PoolQuestion> {
  const { policy } = spec;
  const cells = await store.cells(name);
  const declared = cells.filter(({ role }) => role !== 'synthetic');
  const rest = dearest([...restsOf(cells), ...(await restsToCome(store, declared))]);
  const past = await store.pastFailovers(name, new Date(nowMs - rememberedMs).toISOString());
  const wanted = past.filter(({ syntheticCell }) => syntheticCell !== null);
  // A service has been watched for as long as its cells' blueprints are there, as far as it is remembered.
  const ages = await Promise.all(declared.map(({ blueprint }) => store.blueprintAgeMs(blueprint.name, 1)));
  const observedMs = Math.min(rememberedMs, Math.max(0, ...ages.map((age) => age ?? 0)));
  const newestMs = Math.max(...wanted.map(({ startedAt }) => Date.parse(startedAt)));
  const usedHours = standbyCellHours(
    past.filter(({ endedAt }) => Date.parse(endedAt) > nowMs - 24 * hourMs),
    policy.retireAfterS * 1000,
    nowMs,
  );
  return {
    service: name,
    cells: declared.length,
    predictions: wanted.length,
    observedH: observedMs / hourMs,
    quietH: wanted.length > 0 ? Math.max(0, nowMs - newestMs) / hourMs : null,
    outageMinutes: policy.outageMinutes,
    prices: pricesOf(policy.pool, rest),
    ...(rest && { rest }),
    budgetHours: policy.budget.standbyCellHoursPerDay - usedHours,
  };
}

/** How the service's idle cells lie there. */
function restsOf(cells: readonly CellRecord[]): CellRest[] {
  return cells.flatMap(({ state, rest }) => (state === 'idle' && rest ? [rest] : []));
}

/** How cells made after the declared ones would rest, by what is known now. */
async function restsToCome(
  store: Pick<ConfigurationStore, 'blueprint' | 'cellStarts'>,
  declared: readonly CellRecord[],
): Promise<CellRest[]> {
  const blueprints = new Map(declared.map(({ blueprint }) => [`${blueprint.name}@${blueprint.version}`, blueprint]));
  const rests = [...blueprints.values()].map(async (blueprint) => {
    const version = await store.blueprint(blueprint.name, blueprint.version);
    return version ? [chooseRest(version.spec, await store.cellStarts(blueprint))] : [];
  });
  return (await Promise.all(rests)).flat();
}

const byCost: readonly CellRest['how'][] = ['stopped', 'frozen', 'running'];

/** One price holds for all of them: where they rest in different ways, that of the one that costs most. */
function dearest(rests: readonly CellRest[]): CellRest | undefined {
  return [...rests].sort((a, b) => byCost.indexOf(b.how) - byCost.indexOf(a.how))[0];
}

function pricesOf({ stoppedCostShare, ...prices }: Policy['pool'], rest: CellRest | undefined): PoolQuestion['prices'] {
  return rest?.how === 'stopped' ? { ...prices, idleCostShare: stoppedCostShare } : prices;
}

export type PoolStore = Pick<
  ConfigurationStore,
  'cells' | 'pastFailovers' | 'blueprintAgeMs' | 'blueprint' | 'cellStarts' | 'fleetStop'
>;

/** `open`: the failovers of the service that have not come to their end. */
export async function poolFacts(store: PoolStore, service: ServiceRecord, open: PoolFacts['open']): Promise<PoolFacts> {
  const cells = await store.cells(service.name);
  const declared = await Promise.all(
    cells
      .filter(({ role }) => role !== 'synthetic')
      .map(async ({ name, blueprint }) => {
        const version = await store.blueprint(blueprint.name, blueprint.version);
        return { name, blueprint, isByCost: version?.spec.scaleDown.keep === 'expected-cost' };
      }),
  );
  const isByCost = declared.some((cell) => cell.isByCost);
  const stop = await store.fleetStop();
  return {
    service: service.name,
    autonomy: service.spec.policy.autonomy,
    stop: stop ? { by: stop.by, reason: stop.reason } : null,
    // The sum is worked out only where it decides.
    keep: isByCost ? decidePool(await poolQuestion(store, service)).keep : 0,
    declared,
    synthetic: cells.filter(({ role }) => role === 'synthetic'),
    open,
  };
}
