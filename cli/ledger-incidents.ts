/** What ended failovers teach: their labels as incidents, in the format that `understudy train` and `evaluate` read. */
import type { Dossier } from '../workflows/messages';

/** One line of an incidents file, see docs/prediction.md. */
export interface LabelledIncident {
  cell: string;
  fault: string;
  fault_start: string;
  onset: string;
  recovered: string | null;
  predictable: boolean;
  /** Where it comes from; read by nobody but people. */
  label: string;
  failover: string;
}

/**
 * The incident that a failover has shown, or null: after a false alarm there is none, and that is what is to be learnt.
 * Where the failover itself may have hidden a failure (`averted`, `unknown`), the time is `uncertain`: neither healthy nor
 * failed, so that nothing is learnt from it.
 */
export function incidentOf(dossier: Dossier): LabelledIncident | null {
  const { cell, failover, label, firstRisk, endedAt } = dossier;
  // Practice and clean-up predict nothing; before the level that moves traffic nothing was predicted either.
  if (
    dossier.drill ||
    !label ||
    !firstRisk ||
    (!label.predictedAt && label.kind !== 'missed') ||
    firstRisk.model === 'reconciliation'
  )
    return null;
  const predictedAt = label.predictedAt ?? firstRisk.at;
  const common = { cell, label: label.kind, failover };
  switch (label.kind) {
    case 'false':
      return null;
    case 'confirmed': {
      const onset = label.failedAt ?? predictedAt;
      const fault = firstRisk.drivers?.find((d) => d.direction === 'up')?.metric ?? 'unnamed';
      // When it was well again nobody has seen: add it by hand, or nothing of the cell after it is used.
      return { ...common, fault, fault_start: earlier(firstRisk.at, onset), onset, recovered: null, predictable: true };
    }
    case 'missed': {
      // Whether anything announced it is for a person to say; until then it asks nothing of a model.
      const onset = label.failedAt ?? firstRisk.at;
      return { ...common, fault: 'unnamed', fault_start: onset, onset, recovered: null, predictable: false };
    }
    case 'averted':
    case 'unknown': {
      const onset = earlier(firstRisk.at, predictedAt);
      const recovered = label.watchedTo ?? endedAt ?? predictedAt;
      return { ...common, fault: 'uncertain', fault_start: onset, onset, recovered, predictable: false };
    }
  }
}

function earlier(a: string, b: string): string {
  return Date.parse(a) < Date.parse(b) ? a : b;
}
