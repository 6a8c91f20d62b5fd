/** What the decision about a service's idle cells is made from, read from the Configuration Data Store. */
import { standbyCellHours } from '../activities/survey-fleet';
import type { ServiceRecord } from '../blueprints/records';
import type { ConfigurationStore } from '../blueprints/store';
import type { PoolQuestion } from './pool-economics';

const hourMs = 3_600_000;
const rememberedMs = 30 * 24 * hourMs;

export async function poolQuestion(
  store: Pick<ConfigurationStore, 'cells' | 'pastFailovers' | 'blueprintAgeMs'>,
  { name, spec }: ServiceRecord,
  nowMs = Date.now(),
): Promise<PoolQuestion> {
  const { policy } = spec;
  const declared = (await store.cells(name)).filter(({ role }) => role !== 'synthetic');
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
    prices: policy.pool,
    budgetHours: policy.budget.standbyCellHoursPerDay - usedHours,
  };
}
