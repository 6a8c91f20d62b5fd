/** Runs a blueprint's warm-up plan on the instances of a cell, and says with evidence whether the cell is warm. */
import type { WarmUpStep } from '../../blueprints/schema';
import type { ProtectionReport } from '../protection/read-back';
import { openConnections } from './connections';
import { hitRatio } from './hit-ratio';
import { load } from './load';
import { mirror } from './mirror';
import { preload } from './preload';
import { probe } from './probe';
import type { ProbeEvidence, StepEvidence, StepFinding, WarmUp } from './step';

export interface WarmUpEvidence {
  /** Entries that the instances took over, added up. */
  entries: number;
  /** Connections that were opened and answered, over all instances. */
  connections: number;
  /** Null if the plan has no probe. */
  probe: ProbeEvidence | null;
  warm: boolean;
  /** What each step of the plan measured, in order. */
  steps: StepEvidence[];
  /** What was read back of its protection; left out by a warm-up alone. */
  protection?: ProtectionReport;
  /** Where the source has drifted from the blueprint: the synthetic cell is made like the blueprint. */
  drift?: string[];
  /** Every reason why the cell is not warm, and what limits the evidence. */
  reasons: string[];
}

/** Never throws for what the cell or its peers do: that is evidence. Rejects only when aborted. */
export async function warmUp(order: WarmUp): Promise<WarmUpEvidence> {
  const { plan, instances, progress, signal } = order;
  const evidence: WarmUpEvidence = { entries: 0, connections: 0, probe: null, warm: false, steps: [], reasons: [] };
  const obstacles: string[] = instances.length === 0 ? ['the cell has no instances'] : [];
  const limits: string[] = [];
  for (const [index, step] of plan.entries()) {
    signal?.throwIfAborted();
    const tell = (text: string) => progress?.(`warm-up step ${index + 1} of ${plan.length}, ${step.kind}: ${text}`);
    tell('begins');
    const beganAt = performance.now();
    const found = await take(step, { ...order, progress: tell });
    obstacles.push(...found.obstacles);
    limits.push(...(found.limits ?? []));
    evidence.entries += found.entries ?? 0;
    evidence.connections += found.connections ?? 0;
    if (found.probe) evidence.probe = found.probe;
    evidence.steps.push({ ...judged(step, found), tookMs: Math.round(performance.now() - beganAt) });
  }
  evidence.warm = obstacles.length === 0;
  evidence.reasons = [...obstacles, ...limits];
  return evidence;
}

function take(step: WarmUpStep, order: WarmUp): Promise<StepFinding> {
  switch (step.kind) {
    case 'preload':
      return preload(step, order);
    case 'connections':
      return openConnections(step, order);
    case 'mirror':
      return mirror(step, order);
    case 'probe':
      return probe(step, order);
    case 'hitRatio':
      return hitRatio(step, order);
    case 'load':
      return load(step, order);
  }
}

function judged({ kind }: WarmUpStep, { text, obstacles, limits = [] }: StepFinding): Omit<StepEvidence, 'tookMs'> {
  if (obstacles.length > 0) return { kind, text: obstacles.join('; '), ok: false };
  if (limits.length > 0) return { kind, text: `${text}; ${limits.join('; ')}`, ok: null };
  return { kind, text, ok: true };
}
