/** What a failover has to know before it begins, and whether it is its turn. */
import { Context } from '@temporalio/activity';
import type { Policy } from '../blueprints/schema';
import type { CellRecord, TrafficState } from '../blueprints/records';
import { RefusedError } from '../blueprints/records';
import type { TrafficView } from '../envoy/traffic-client';
import type { FailoverContext, Leftover } from '../workflows/failover';
import type { Drill } from '../workflows/messages';
import type { FailoverActivities, Subject } from '../workflows/steps';
import { capacityBp, totalsOf } from './measures';
import type { Ports } from './ports';

const turnPollMs = 1000;

/** The synthetic cell that this failover holds from an earlier run, if it still carries traffic. */
function leftoverOf(
  cells: CellRecord[],
  failover: string,
  source: string,
  state: TrafficState | undefined,
  view: TrafficView | null,
): Leftover | null {
  for (const { name, role, owner, instances } of cells) {
    const shareBp = state?.split.find((share) => share.cell === name)?.shareBp ?? 0;
    if (role !== 'synthetic' || owner !== failover || shareBp === 0) continue;
    const totals = (cell: string) => (view ? totalsOf(view, cell) : { requests: 0, errors: 0 });
    return {
      syntheticCell: name,
      instances: instances.length,
      shareBp,
      totals: { source: totals(source), synthetic: totals(name) },
    };
  }
  return null;
}

/** A drill acts by itself, as far as its share: who asks for drills has approved them. */
function drillPolicy(policy: Policy, { shareBp }: Drill): Policy {
  return { ...policy, autonomy: 'act', canaryBp: shareBp, stepBp: shareBp };
}

export function assessing({ store, traffic, failovers }: Ports, surveyFleet: FailoverActivities['surveyFleet']) {
  return {
    async loadContext({ failover, service: serviceName, cell: cellName, drill }: Subject): Promise<FailoverContext> {
      const service = await store.service(serviceName);
      if (!service)
        throw new RefusedError(`service ${serviceName} is not in the Configuration Data Store: apply it first`);
      const cell = await store.cell(cellName);
      if (cell?.service !== serviceName)
        throw new RefusedError(`service ${serviceName} has no cell ${cellName}: apply it first`);
      const blueprint = await store.blueprint(cell.blueprint.name, cell.blueprint.version);
      if (!blueprint)
        throw new RefusedError(`blueprint ${cell.blueprint.name}@${cell.blueprint.version} of ${cellName} is missing`);
      const state = await store.traffic(serviceName);
      // Load reports may be missing for a while; the capacity is asked again at every shift.
      const view = await traffic.getTraffic(serviceName).catch(() => null);
      const leftover = leftoverOf(await store.cells(serviceName), failover, cellName, state, view);
      return {
        policy: drill ? drillPolicy(service.spec.policy, drill) : service.spec.policy,
        blueprint: { name: blueprint.name, version: blueprint.version },
        zone: cell.zone,
        healthCheckPath: service.spec.healthCheck.path,
        healthCheckIntervalMs: service.spec.healthCheck.intervalMs,
        sloErrorRatio: service.spec.slo.errorRatio,
        sourceBp: state?.split.find((share) => share.cell === cellName)?.shareBp ?? 0,
        capacityBp: view && capacityBp(view, blueprint.spec.capacity.requestsPerSecond),
        epoch: state?.epoch ?? 0,
        beforeOnset: view && totalsOf(view, cellName),
        sloLatencyMs: service.spec.slo.latencyMs,
        ...(service.spec.mirror.percent > 0 && { mirrorBp: Math.round(service.spec.mirror.percent * 100) }),
        fleet: await surveyFleet({ failover, service: serviceName, cell: cellName }),
        ...(leftover && { leftover }),
        ...(drill && { drill: { maxShareBp: drill.shareBp, realPolicy: service.spec.policy } }),
      };
    },

    async awaitTurn({
      service,
      failover,
      maxConcurrentFailovers,
    }: Subject & { maxConcurrentFailovers: number }): Promise<void> {
      for (;;) {
        const ahead = await failovers.ahead(service, failover);
        if (ahead < maxConcurrentFailovers) return;
        Context.current().heartbeat({ ahead });
        await Context.current().sleep(turnPollMs);
      }
    },
  };
}
