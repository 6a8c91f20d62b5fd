/** Reads incidents in the contract's format, strictly: a wrong incident would make every figure wrong. */
import { z } from 'zod';
import type { IncidentSpan } from './contracts';
import { readLinesOf } from './lines';

const time = z.string().transform((text, context) => {
  const ms = Date.parse(text);
  if (Number.isFinite(ms)) return ms;
  context.addIssue({ code: 'custom', message: `is "${text}", expected ISO 8601` });
  return z.NEVER;
});

const incidentSchema = z
  .looseObject({
    cell: z.string().min(1),
    fault: z.string().min(1),
    fault_start: time,
    onset: time,
    recovered: time.nullish(),
    predictable: z.boolean(),
  })
  .superRefine(({ fault_start, onset, recovered }, context) => {
    const issue = (path: string, message: string): void => context.addIssue({ code: 'custom', path: [path], message });
    if (fault_start > onset) issue('fault_start', 'lies after onset; a fault begins before it is felt');
    if (typeof recovered === 'number' && recovered < onset) issue('recovered', 'lies before onset');
  });

/** `where` is put before the message: file and line. */
export function parseIncident(text: string, where: string): IncidentSpan {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new Error(`${where}: not JSON: ${(error as Error).message}`, { cause: error });
  }
  const parsed = incidentSchema.safeParse(json);
  if (!parsed.success) {
    const reasons = parsed.error.issues.map((i) => `${i.path.join('.') || 'incident'} ${i.message}`);
    throw new Error(
      `${where}: ${reasons.join('; ')}. Expected {"cell","fault","fault_start","onset","recovered","predictable"}.`,
    );
  }
  const { cell, fault, fault_start, onset, recovered, predictable } = parsed.data;
  return { cell, fault, faultStartMs: fault_start, onsetMs: onset, recoveredMs: recovered ?? Infinity, predictable };
}

export async function readIncidentSpans(file: string): Promise<IncidentSpan[]> {
  const incidents: IncidentSpan[] = [];
  for await (const { number, bytes } of readLinesOf(file)) {
    incidents.push(parseIncident(bytes.toString('utf8'), `${file}:${number}`));
  }
  return incidents;
}
