/** `understudy evaluate`: how well a model foretells the failures of a recording, and whether it may replace another. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { packageRoot } from '../package-root';

interface EvaluateFlags {
  telemetry: string;
  incidents: string;
  model: string;
  decoder?: string;
  sloLatencyMs?: number;
  step?: number;
  threshold?: number;
  horizon?: number;
  lenientHorizon?: boolean;
  against?: string;
  comparators?: boolean;
  json?: string;
  html?: string;
  saveDecisions?: string;
}

/** The gate refused; everything else that goes wrong is 1. */
const refusedExitCode = 3;

const positive = (text: string): number => {
  const value = Number(text);
  if (text.trim() === '' || !(value > 0) || !Number.isFinite(value)) {
    throw new InvalidArgumentError('expected a number above 0.');
  }
  return value;
};

const probability = (text: string): number => {
  const value = positive(text);
  if (value > 1) throw new InvalidArgumentError('expected a probability, above 0 and at most 1.');
  return value;
};

export function evaluateCommand(): Command {
  return new Command('evaluate')
    .description(
      'Judge a model on recorded telemetry and incidents: events, false alarms, warning, calibration, reasons.',
    )
    .requiredOption('--telemetry <file>', 'one record per line; plain, .gz, .br or .zst')
    .requiredOption('--incidents <file>', 'one incident per line')
    .option('--model <manifest>', 'manifest of the model', join(packageRoot, 'models', 'manifest.json'))
    .option('--decoder <name>', 'decoder of the telemetry (default: told from each line)')
    .option('--slo-latency-ms <n>', 'latency objective of all cells (default: none is known)', positive)
    .option('--step <seconds>', 'interval of the telemetry (default: as it says itself, or as it shows)', positive)
    .option('--threshold <p>', 'an alert begins at this probability (default: as the manifest says)', probability)
    .option('--horizon <ticks>', "how far ahead an alert may begin (default: the model's longest horizon)", positive)
    .option('--lenient-horizon', 'count an alert after the fault began, but ahead of the horizon, as caught')
    .option('--comparators', 'compare with other methods, tuned on this very data to their advantage (takes long)')
    .option('--against <manifest>', `which past decisions would change; exit code ${refusedExitCode} if refused`)
    .option('--json <file>', 'write all figures here')
    .option('--html <file>', 'write a page with plots here')
    .option('--save-decisions <file>', 'keep the decisions, for --against when this model can no longer be run')
    .action(evaluateFiles);
}

async function evaluateFiles(flags: EvaluateFlags): Promise<void> {
  const { readIncidentSpans } = await import('../models/evaluation/incidents.js');
  const { readTelemetry, incidentsWithoutTelemetry } = await import('../models/evaluation/telemetry-file.js');
  const { evaluate } = await import('../models/evaluation/run.js');
  const { reportText } = await import('../models/evaluation/report-text.js');
  const { reportHtml } = await import('../models/evaluation/report-html.js');
  // Progress goes beside the report, so that the report can be piped.
  const log = (line: string): void => console.error(line);

  const incidents = await readIncidentSpans(flags.incidents);
  const read = await readTelemetry(flags.telemetry, {
    decoder: flags.decoder,
    stepMs: flags.step === undefined ? undefined : flags.step * 1000,
    sloLatencyMs: flags.sloLatencyMs,
    incidents,
    onProgress: (records, cells) => log(`read ${records.toLocaleString('en')} records of ${cells} cells`),
  });
  const notes: string[] = [];
  if (read.refusedLines > 0 || read.refusals.length > 0) {
    notes.push(
      `${read.refusedLines} of ${read.records} lines could not be understood; first: ${read.refusals[0] ?? ''}`,
    );
  }
  const strangers = incidentsWithoutTelemetry(incidents, read.cells);
  if (strangers.length > 0) {
    const names = [...new Set(strangers.map(({ cell }) => cell))].slice(0, 5).join(', ');
    notes.push(`${strangers.length} incidents are of cells without telemetry (${names}) and are not judged.`);
  }
  if (flags.sloLatencyMs === undefined) {
    notes.push('No latency objective is declared (--slo-latency-ms): latency is judged by what is usual only.');
  }
  const { report, decisions } = await evaluate({
    cells: read.cells,
    source: flags.telemetry,
    command: commandOf(flags),
    manifestFile: flags.model,
    threshold: flags.threshold,
    horizonTicks: flags.horizon,
    strictHorizon: !flags.lenientHorizon,
    notes,
    ...(flags.comparators && { comparators: 'here' as const }),
    against: flags.against,
    log,
  });
  console.log(reportText(report));
  if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(report, null, 1)}\n`);
  if (flags.html !== undefined) writeFileSync(flags.html, reportHtml(report));
  if (flags.saveDecisions !== undefined) writeFileSync(flags.saveDecisions, `${JSON.stringify(decisions, null, 1)}\n`);
  if (report.gate && !report.gate.accepted) process.exitCode = refusedExitCode;
}

/** The call that gives this report again, without where it is written to. */
function commandOf(flags: EvaluateFlags): string {
  const parts = [`understudy evaluate --telemetry ${flags.telemetry} --incidents ${flags.incidents}`];
  if (flags.sloLatencyMs !== undefined) parts.push(`--slo-latency-ms ${flags.sloLatencyMs}`);
  if (flags.step !== undefined) parts.push(`--step ${flags.step}`);
  if (flags.decoder !== undefined) parts.push(`--decoder ${flags.decoder}`);
  if (flags.threshold !== undefined) parts.push(`--threshold ${flags.threshold}`);
  if (flags.horizon !== undefined) parts.push(`--horizon ${flags.horizon}`);
  if (flags.lenientHorizon) parts.push('--lenient-horizon');
  if (flags.comparators) parts.push('--comparators');
  if (flags.against !== undefined) parts.push(`--against ${flags.against}`);
  return parts.join(' ');
}
