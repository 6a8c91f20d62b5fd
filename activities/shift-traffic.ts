/** Arms a synthetic cell and changes the split: reads, computes by the load balancer's rules, compares and swaps. */
import { Context } from '@temporalio/activity';
import type { CellShare } from '../blueprints/records';
import { FleetStoppedError, RefusedError, StaleEpochError } from '../blueprints/records';
import type { Move } from '../cells/data-sync/data-gate';
import { reduceTraffic, shiftTraffic } from '../envoy/shift-traffic';
import { KeyReusedError, type ApplyResult, type TrafficView } from '../envoy/traffic-client';
import type { Acknowledgement, FailoverActivities, ShiftRequest, ShiftResult } from '../workflows/steps';
import { capacityBp, loadOf, peersOf, shareOf, totalsOf } from './measures';
import type { Ports } from './ports';

/** How often a split that somebody else changed meanwhile is read again before the attempt fails. */
const racesLost = 5;

export function trafficShifts({ store, traffic, data }: Ports): Pick<FailoverActivities, 'armCell' | 'shiftTraffic'> {
  return {
    async armCell({ service, syntheticCell, failover, reason, key, byPerson = false }): Promise<Acknowledgement> {
      const applied = await traffic.armCell({
        service,
        cell: syntheticCell,
        reason,
        by: failover,
        override: byPerson,
        idempotencyKey: key,
      });
      await store.updateCell(syntheticCell, { state: 'armed' }, failover);
      return acknowledgement(applied);
    },

    async shiftTraffic(request: ShiftRequest): Promise<ShiftResult> {
      const blueprint = await store.blueprint(request.blueprint.name, request.blueprint.version);
      if (!blueprint)
        throw new RefusedError(`blueprint ${request.blueprint.name}@${request.blueprint.version} is missing`);
      const { requestsPerSecond } = blueprint.spec.capacity;
      /** Of all tries: the one that moves the share may find that one before has moved the data. */
      const ofData: string[] = [];
      for (let attempt = 1; ; attempt++) {
        const view = await traffic.getTraffic(request.service);
        const wanted = wantedSplit(request, view, requestsPerSecond);
        if (!wanted.split) return answer(request, view, requestsPerSecond, null, wanted.why);
        const override = request.byPerson ?? request.purpose === 'ordered';
        const stop = data && !override ? await store.fleetStop?.() : undefined;
        // The stop freezes the data as well, not only the split.
        if (stop) {
          const why = `the fleet is stopped by ${stop.by} (${stop.reason})`;
          return answer(request, view, requestsPerSecond, null, why);
        }
        const verdict = await data?.beforeMove(dataMove(request, view));
        if (verdict?.barred) return answer(request, view, requestsPerSecond, null, verdict.barred);
        ofData.push(...(verdict?.evidence ?? []));
        if (ofData.length > 0) wanted.why += `; data: ${ofData.join('; ')}`;
        try {
          const change = {
            service: request.service,
            expectedEpoch: view.epoch,
            split: wanted.split,
            reason: `${request.purpose}: ${wanted.why}`,
            by: request.failover,
            idempotencyKey: request.key,
            override,
          };
          const applied = await traffic.applySplit(change).catch((err: unknown) => {
            // An attempt whose answer was lost has made its change: on other figures, and it is that one that counts.
            if (err instanceof KeyReusedError) return traffic.awaitChange(request.service, request.key);
            throw err;
          });
          await recordState(request, applied);
          return answer(request, await traffic.getTraffic(request.service), requestsPerSecond, applied, wanted.why);
        } catch (err) {
          if (err instanceof FleetStoppedError) return answer(request, view, requestsPerSecond, null, err.message);
          // Somebody else changed the split: what was computed from the old one is worth nothing.
          if (!(err instanceof StaleEpochError) || attempt === racesLost) throw err;
        }
      }
    },
  };

  async function recordState({ cell, syntheticCell, failover }: ShiftRequest, applied: ApplyResult): Promise<void> {
    const shareOf = (name: string) => applied.split.find((s) => s.cell === name)?.shareBp ?? 0;
    const state = shareOf(syntheticCell) > 0 ? 'serving' : 'armed';
    await store.updateCell(syntheticCell, { state }, failover);
    await quarantine(cell, shareOf(cell) === 0);
  }

  /** Without a share the source is only watched: where the service allows it, under copies of requests. */
  async function quarantine(name: string, isEmptied: boolean): Promise<void> {
    const source = await store.cell(name);
    if (!source || source.role === 'synthetic') return;
    const isMirrored = isEmptied && ((await store.service(source.service))?.spec.mirror.percent ?? 0) > 0;
    const state = isMirrored ? 'quarantined' : 'active';
    if (source.state !== state) await store.updateCell(name, { state });
  }
}

/** A canary is a trial: it shares the reads. Everything more takes the writes over first, and all of them. */
function dataMove({ cell, syntheticCell, targetBp, knownBp, purpose }: ShiftRequest, view: TrafficView): Move {
  const isBack = targetBp < Math.max(knownBp, shareOf(view, syntheticCell));
  return { source: cell, syntheticCell, direction: isBack ? 'down' : 'up', isTrial: purpose === 'canary' };
}

/** The split to command, or why none. Every purpose is one of the load balancer's two movements with its own guard. */
function wantedSplit(request: ShiftRequest, view: TrafficView, requestsPerSecond: number) {
  const split: CellShare[] = view.cells
    .filter((c) => c.shareBp > 0 || c.coverInstances > 0)
    .map(({ cell, shareBp, coverInstances }) => ({ cell, shareBp, coverInstances }));
  const { cell: source, syntheticCell: synthetic, targetBp, coverInstances, purpose } = request;
  const currentBp = shareOf(view, synthetic);
  const isRepeated = Context.current().info.attempt > 1 && currentBp !== request.knownBp;
  if (currentBp === targetBp || isRepeated) {
    // Done by an attempt whose answer was lost, or by somebody else: the same key brings the acknowledgement.
    return { split: withoutIdle(split, synthetic), why: 'the share is in place already' };
  }
  // A person, and a dead source, need no load at the source; its capacity binds everyone.
  const isGuarded = purpose === 'canary' || purpose === 'step' || purpose === 'emergency';
  const shift =
    targetBp > currentBp
      ? shiftTraffic({
          split,
          source,
          synthetic,
          requestedBp: targetBp - currentBp,
          sourceLoad: isGuarded ? loadOf(view, source, requestsPerSecond) : Number.POSITIVE_INFINITY,
          highThreshold: request.minSourceLoad,
          syntheticCapacityBp: capacityBp(view, requestsPerSecond) ?? 10_000,
          coverInstances,
        })
      : reduceTraffic({
          split,
          source,
          synthetic,
          reductionBp: currentBp - targetBp,
          // The decision has looked at the source's health already, or a person has.
          sourceHealthy: true,
          coverInstances,
        });
  return shift.shiftedBp === 0
    ? { split: null, why: shift.reason }
    : { split: withoutIdle(shift.split, synthetic), why: shift.reason };
}

/** A synthetic cell that neither carries nor covers leaves the split. */
function withoutIdle(split: CellShare[], synthetic: string): CellShare[] {
  return split.filter((s) => s.cell !== synthetic || s.shareBp > 0 || s.coverInstances > 0);
}

function answer(
  { cell, syntheticCell }: ShiftRequest,
  view: TrafficView,
  requestsPerSecond: number,
  applied: ApplyResult | null,
  why: string,
): ShiftResult {
  const commanded = (name: string) => applied?.split.find((s) => s.cell === name)?.shareBp ?? 0;
  return {
    applied: applied !== null,
    why,
    acknowledgement: applied && acknowledgement(applied),
    sourceBp: applied ? commanded(cell) : shareOf(view, cell),
    syntheticBp: applied ? commanded(syntheticCell) : shareOf(view, syntheticCell),
    capacityBp: capacityBp(view, requestsPerSecond),
    epoch: applied?.epoch ?? view.epoch,
    totals: {
      source: totalsOf(view, cell),
      synthetic: totalsOf(view, syntheticCell),
      peers: peersOf(view, cell, syntheticCell),
    },
  };
}

function acknowledgement(applied: ApplyResult): Acknowledgement {
  return {
    epoch: applied.epoch,
    split: Object.fromEntries(applied.split.map((s) => [s.cell, s.shareBp])),
    acknowledged: applied.acknowledged,
    refused: applied.refused.map(({ node, reason }) => ({ node, reason })),
    pending: applied.pending,
    tookMs: applied.tookMs,
  };
}
