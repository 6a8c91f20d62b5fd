/** `understudy demo`: plays the three acts, tells them as they happen, and leaves the report behind. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { loadSettingsModelName } from './model-name';
import { leakThatStops, leakToDeath, leakUnpredicted } from './acts';
import { cellCapacityRps, demoRatePerSecond, demoSloMs } from './documents';
import { formatTable, reportRows, type ActReport, type DemoReport } from './report';
import { renderReport } from './report-html';
import { Stage } from './stage';

export interface DemoOptions {
  /** Leave the stack running until Ctrl-C. */
  keep: boolean;
  /** Where demo-report.json and demo-report.html go. */
  outDir: string;
}
