/** The cells of the project's recordings as series, those of training and those that were kept out of it. */
import { basename } from 'node:path';
import { readRecordedGroups } from '../training/recorded';
import { SampleLog } from './sample-log';
import { seriesOf, type RecordedCell } from './series';
import { isHeldOut, type Split } from './split';

/** Reads every cell once; groups that the split keeps out of training come back apart. */
export async function recordedCells(
  dirs: readonly string[],
  split: Split,
  log: (line: string) => void = () => undefined,
): Promise<{ training: RecordedCell[]; heldOut: RecordedCell[] }> {
  const training: RecordedCell[] = [];
  const heldOut: RecordedCell[] = [];
  for (const dir of dirs) {
    for await (const group of readRecordedGroups(dir, basename(dir))) {
      const into = isHeldOut(split, group) ? heldOut : training;
      for (const { cell, facts, samples, incidents, fromMs, toMs } of group.cells) {
        if (samples.length === 0) continue;
        const samplesOfCell = new SampleLog(cell);
        for (const sample of samples) samplesOfCell.add(sample);
        into.push(
          seriesOf(samplesOfCell, {
            stepMs: group.stepMs,
            service: facts.cohort,
            sloLatencyS: facts.sloLatencyMs === undefined ? NaN : facts.sloLatencyMs / 1000,
            incidents,
            watched: { fromMs, toMs },
          }),
        );
      }
    }
    log(`read ${dir}: ${training.length} cells of training, ${heldOut.length} kept out`);
  }
  return { training, heldOut };
}
