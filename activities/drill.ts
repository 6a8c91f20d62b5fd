/** Plans a drill and plays its prediction: what the scoring worker would say, until the share has been carried. */
import { Context } from '@temporalio/activity';
import { WorkflowNotFoundError, type Client } from '@temporalio/client';
import { RefusedError } from '../blueprints/records';
import { drillSchema, type DrillPolicy } from '../blueprints/schema';
import type { TrafficView } from '../envoy/traffic-client';
import { practiceEvent, type DrillActivities, type DrillPlay } from '../workflows/drill';
import { drillPermit, whatLacksRoom, type DrillFacts } from '../workflows/drill-permit';
import { failoverWorkflowId, signalNames } from '../workflows/messages';
import { loadOf } from './measures';
import type { CarePorts } from './reconcile';

const tellEveryMs = 2000;
const wayBackAtMostMs = 10 * 60_000;

export function drills({ store, traffic, client }: CarePorts): DrillActivities {
  async function factsOf(service: string, cell?: string): Promise<DrillFacts> {
    const record = await store.service(service);
    if (!record) throw new RefusedError(`service ${service} is not in the Configuration Data Store: apply it first`);
    const { policy } = record.spec;
    const drill: DrillPolicy = { ...(policy.drill ?? drillSchema.parse({})), ...(cell !== undefined && { cell }) };
    const view: TrafficView | null = await traffic.getTraffic(service).catch(() => null);
    const all = await store.cells(service);
    const declared = await Promise.all(
      all
        .filter(({ role }) => role !== 'synthetic')
        .map(async ({ name, blueprint }) => {
          const load = view?.cells.find((c) => c.cell === name);
          const version = await store.blueprint(blueprint.name, blueprint.version);
          const capacity = version?.spec.capacity.requestsPerSecond ?? 0;
          const isMeasured = load?.measured === true && view !== null && capacity > 0;
          return {
            name,
            load: isMeasured ? loadOf(view, name, capacity) : null,
            errorRatio: load?.errorRatio ?? 0,
            shareBp: load?.shareBp ?? 0,
          };
        }),
    );
    const carries = (name: string) => (view?.cells.find((c) => c.cell === name)?.shareBp ?? 0) > 0;
    return {
      autonomy: policy.autonomy,
      drill,
      nowMs: Date.now(),
      underWay: await openFailovers(client, service),
      cells: declared,
      maxErrorRatio: policy.maxErrorRatio,
      minSourceLoad: policy.minSourceLoad,
      standIns: all.filter(({ name, role }) => role === 'synthetic' && carries(name)).map(({ name }) => name),
    };
  }

  return {
    async planDrill({ service, cell }) {
      const facts = await factsOf(service, cell);
      return { permit: drillPermit(facts), drill: facts.drill };
    },

    async playPrediction({ service, cell, drill, policy }): Promise<DrillPlay> {
      const context = Context.current();
      const handle = client.workflow.getHandle(failoverWorkflowId(service, cell));
      const startedMs = context.info.scheduledTimestampMs;
      let carriesSinceMs: number | null = null;
      let provenMs: number | null = null;
      let askedFor = { share: 'no share was taken', way: '' };
      for (;;) {
        const nowMs = Date.now();
        try {
          const run = await handle.describe();
          if (run.status.name !== 'RUNNING') return { ended: 'failover-ended', why: askedFor.share };
          if (run.searchAttributes.FailoverKind?.[0] === 'prediction') {
            return { ended: 'overtaken', why: 'a real prediction came and took over what the drill had made' };
          }
          await handle.signal(signalNames.riskChanged, practiceEvent({ service }, cell, drill, 'shift'));
        } catch (err) {
          if (err instanceof WorkflowNotFoundError) return { ended: 'failover-ended', why: askedFor.share };
          throw err;
        }
        const view = await traffic.getTraffic(service).catch(() => null);
        const standIn = (await store.cells(service)).find((c) => c.owner === failoverWorkflowId(service, cell));
        const carried = view?.cells.find((c) => c.cell === standIn?.name && c.shareBp > 0);
        carriesSinceMs = carried ? (carriesSinceMs ?? nowMs) : null;
        if (carried && carried.requestsTotal > 0 && nowMs - carriesSinceMs! >= policy.forS * 1000) {
          provenMs ??= nowMs;
          askedFor.share = `${carried.cell} carried ${carried.shareBp} bp for ${policy.forS} s`;
          const lacking = whatLacksRoom(await factsOf(service, cell));
          if (lacking === null) return { ended: 'proven', why: askedFor.share };
          askedFor = { ...askedFor, way: `, but there is no room for the way back: ${lacking}` };
          if (nowMs - provenMs > wayBackAtMostMs) return { ended: 'stuck', why: askedFor.share + askedFor.way };
        } else if (nowMs - startedMs > policy.atMostS * 1000) {
          const why = `${askedFor.share} within ${policy.atMostS} s`;
          return { ended: 'stuck', why };
        }
        context.heartbeat(askedFor);
        await context.sleep(tellEveryMs);
      }
    },
  };
}

/** Real ones and drills, in their cooldown too: as long as one is open the cell has an owner. */
async function openFailovers(client: Client, service: string): Promise<string[]> {
  const query = `WorkflowType = 'PredictiveFailover' AND ExecutionStatus = 'Running' AND FailoverService = '${service}'`;
  const open: string[] = [];
  for await (const run of client.workflow.list({ query })) open.push(run.workflowId);
  return open;
}
