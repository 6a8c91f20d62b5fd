/** Looks for what terminated runs left behind, and mends it without taking away what carries traffic. */
import { Context } from '@temporalio/activity';
import { WorkflowNotFoundError, type Client } from '@temporalio/client';
import { RefusedError, type ServiceRecord } from '../blueprints/records';
import type { ConfigurationStore } from '../blueprints/store';
import type { ObservedCell } from '../cells/provider';
import { findings, type Finding, type RunFact, type ServiceFacts } from '../workflows/findings';
import type { Outcome } from '../workflows/messages';
import type { ReconcileActivities } from '../workflows/reconcile';
import type { DataGates, Ports, Traffic } from './ports';
import { syntheticCells } from './synthetic-cell';
import { takeUpShare } from './take-up-share';

export interface CarePorts {
  store: Ports['store'] & Pick<ConfigurationStore, 'services' | 'idleCells'>;
  traffic: Traffic;
  cells: Ports['cells'] & { standing(): Promise<ObservedCell[]>; destroyUnknown(cell: string): Promise<void> };
  data?: DataGates;
  client: Client;
  failoverTaskQueue: string;
}

const statuses: Record<string, RunFact['status']> = {
  RUNNING: 'running',
  COMPLETED: 'completed',
  CANCELLED: 'cancelled',
  FAILED: 'failed',
  TERMINATED: 'terminated',
  TIMED_OUT: 'timed-out',
  CONTINUED_AS_NEW: 'running',
};

/** Owners that are workflow ids. */
function isRun(owner: string | null): owner is string {
  return owner !== null && (owner.startsWith('failover/') || owner.startsWith('pool/'));
}

export function reconciliation(ports: CarePorts): ReconcileActivities {
  const { store, traffic, cells, client } = ports;
  const { restAtIdle, retireSyntheticCell } = syntheticCells({
    ...ports,
    failovers: { ahead: async () => 0, predicted: async () => [] },
  });

  async function look(service: ServiceRecord, standing: ObservedCell[] | null, graceS: number): Promise<Finding[]> {
    return findings(await factsOf(service, standing, graceS));
  }

  async function factsOf(
    { name, spec }: ServiceRecord,
    standing: ObservedCell[] | null,
    graceS: number,
  ): Promise<ServiceFacts> {
    const known = await store.cells(name);
    const idle = await store.idleCells();
    const state = await store.traffic(name);
    const view = await traffic.getTraffic(name).catch(() => null);
    const rateOf = (cell: string): number | null => {
      const load = view?.cells.find((c) => c.cell === cell);
      return load?.measured ? load.requestsPerSecond : null;
    };
    const shareOf = (cell: string) => state?.split.find((share) => share.cell === cell);
    // Without a word from the load balancer nobody can say that they carry nothing.
    const strangers = (view ? (standing ?? []) : []).filter(
      (cell) => cell.service === name && !known.some((k) => k.name === cell.cell) && !shareOf(cell.cell),
    );
    const owners = new Set([...known.map((cell) => cell.owner), ...strangers.map((cell) => cell.owner)]);
    const runs: Record<string, RunFact> = {};
    for (const owner of owners) if (isRun(owner)) runs[owner] = await runOf(owner);
    return {
      service: name,
      autonomy: spec.policy.autonomy,
      epoch: state?.epoch ?? 0,
      graceS,
      cells: known.map((cell) => ({
        name: cell.name,
        role: cell.role,
        state: cell.state,
        sourceCell: cell.sourceCell,
        owner: cell.owner,
        shareBp: shareOf(cell.name)?.shareBp ?? 0,
        coverInstances: shareOf(cell.name)?.coverInstances ?? 0,
        observed: standing && (standing.find((s) => s.cell === cell.name)?.phase ?? 'absent'),
        requestsPerSecond: rateOf(cell.name),
        idleForS: idle.find((i) => i.cell.name === cell.name)?.idleForS ?? null,
      })),
      strangers: strangers.map(({ cell, owner }) => ({ name: cell, owner, requestsPerSecond: rateOf(cell) })),
      runs,
    };
  }

  /** Asked of the run itself: lists may be seconds behind. */
  async function runOf(failover: string): Promise<RunFact> {
    try {
      const run = await client.workflow.getHandle(failover).describe();
      return {
        status: statuses[run.status.name] ?? 'unknown',
        runId: run.runId,
        endedForS: run.closeTime ? (Date.now() - run.closeTime.getTime()) / 1000 : null,
        outcome: (run.searchAttributes.FailoverOutcome?.[0] as Outcome | undefined) ?? null,
      };
    } catch (err) {
      if (!(err instanceof WorkflowNotFoundError)) throw err;
      return { status: 'unknown', runId: null, endedForS: null, outcome: null };
    }
  }

  /** The failover is started again: it takes up the share that it finds, and gives it back by its own gates. */
  async function takeOver(finding: Finding): Promise<string> {
    const { service, cell, sourceCell, owner, id } = finding;
    const failover = await takeUpShare(
      { client, store, taskQueue: ports.failoverTaskQueue },
      {
        standIn: { name: cell, owner, service },
        source: sourceCell!,
        ...{ id, by: 'reconciliation', summary: 'takes up what an earlier run left' },
      },
    );
    return `${failover} was started again to take up the share of ${cell} and give it back in steps`;
  }

  /**
   * The claim is taken first, so that a new run of the same failover cannot come to use what is being put away; if one
   * has begun meanwhile, it gets its claim back.
   */
  async function putAway(finding: Finding): Promise<{ done: boolean; what: string }> {
    const { service, cell, sourceCell, owner, mend } = finding;
    const claim = `reconciliation/${cell}`;
    if (owner !== claim) await store.updateCell(cell, { owner: claim }, owner);
    if (isRun(owner) && (await runOf(owner)).status === 'running') {
      await store.updateCell(cell, { owner }, claim);
      return { done: false, what: `${owner} runs again and keeps ${cell}` };
    }
    const request = {
      failover: claim,
      service,
      cell: sourceCell ?? cell,
      syntheticCell: cell,
      key: `${finding.id}/${Context.current().info.workflowExecution?.runId ?? 'by hand'}`,
      reason: finding.what,
    };
    if (mend === 'rest') await restAtIdle(request);
    else await retireSyntheticCell(request);
    return { done: true, what: `${cell} was ${mend === 'rest' ? 'laid to rest, idle and free' : 'retired'}` };
  }

  return {
    async lookForFindings({ graceS }): Promise<Finding[]> {
      const standing = await cells.standing().catch(() => null);
      const found: Finding[] = [];
      for (const service of await store.services()) found.push(...(await look(service, standing, graceS)));
      return found;
    },

    async mendFinding({ finding, graceS }): Promise<{ done: boolean; what: string }> {
      const beat = setInterval(() => Context.current().heartbeat(), 1000);
      try {
        const service = await store.service(finding.service);
        if (!service) return { done: false, what: `service ${finding.service} is gone` };
        const standing = await cells.standing().catch(() => null);
        // How it is mended may have changed meanwhile: what was ready to rest may have died.
        const now = (await look(service, standing, graceS)).find(
          ({ cell, kind, mend }) => cell === finding.cell && kind === finding.kind && mend !== 'none',
        );
        if (!now) return { done: false, what: `${finding.cell}: has passed by itself` };
        if (now.mend === 'take-over') return { done: true, what: await takeOver(now) };
        if (now.mend !== 'destroy') return await putAway(now);
        await cells.destroyUnknown(now.cell);
        return { done: true, what: `${now.cell}, of which the store knew nothing, was ended` };
      } catch (err) {
        // Somebody was faster, or it carries traffic after all: the next look decides anew.
        if (err instanceof RefusedError) return { done: false, what: err.message };
        throw err;
      } finally {
        clearInterval(beat);
      }
    },
  };
}
