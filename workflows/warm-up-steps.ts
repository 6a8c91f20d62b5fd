/** What each step of a warm-up measured, in words, out of the dossier's line about it. */
import type { DossierEntry } from './messages';

/** `ok: null`: it could not be judged. */
interface MeasuredStep {
  kind: string;
  text: string;
  ok: boolean | null;
  /** Left out by runs that began before it was measured. */
  tookMs?: number;
}

const verdicts = new Map<boolean | null, string>([
  [true, 'ok'],
  [false, 'failed'],
  [null, 'not judged'],
]);

/** One line per step: "probe, ok after 0.4 s: ...". None for other lines of the dossier, and for those from before steps were told. */
export function warmUpSteps({ phase, evidence }: DossierEntry): string[] {
  if (phase !== 'warming' || !Array.isArray(evidence?.steps)) return [];
  return (evidence.steps as MeasuredStep[]).map(({ kind, text, ok, tookMs }) => {
    const took = tookMs === undefined ? '' : ` after ${(tookMs / 1000).toFixed(1)} s`;
    return `${kind}, ${verdicts.get(ok)}${took}: ${text}`;
  });
}
