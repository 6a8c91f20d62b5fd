/** Decisions as CloudEvents 1.0 in structured JSON: the schema that consumers may rely on, and the way to it. */
import { z } from 'zod';
import { decisionKinds, type Decision } from '../workflows/decisions';

export const dataSchemaUri = 'urn:understudy:decision-event:1';

export const decisionEventSchema = z.strictObject({
  specversion: z.literal('1.0'),
  id: z.string().describe('The same decision has the same id: what is delivered twice can be told by it.'),
  source: z.string().describe('Who decided: /understudy/ and the workflow id, percent-encoded.'),
  type: z.enum(decisionKinds.map((kind) => `understudy.decision.${kind}` as const)),
  subject: z.string().describe('service/cell; also the key of the Kafka record.'),
  time: z.iso.datetime().describe('When it was decided.'),
  datacontenttype: z.literal('application/json'),
  dataschema: z.literal(dataSchemaUri),
  data: z
    .looseObject({
      service: z.string(),
      cell: z.string().describe('The source cell; of a finding and of the pool, the cell that was found or made.'),
      by: z.string().describe('Workflow id.'),
      drill: z.boolean().describe('True: a practice prediction. It says nothing about the health of the cell.'),
      what: z.string().describe('One sentence for a person.'),
      runId: z.string().optional(),
    })
    .describe(
      'phase: phase, before, why, risk, syntheticCell, sourceBp, syntheticBp, epoch. plan: plan, before, canaryBp, why. ' +
        'guard: guard (null: none any more; split: the load balancer refused a change), reach, why, liftable, before. ' +
        'page: why, phase. override: accepted, override, phase. ' +
        'outcome: outcome, reason, startedAt, changes. finding and mending: finding (orphan: with provider; drift: with blueprint, path, matters), mend, done. drill: result, reason, failover. ' +
        'pool: result (idle, taken, not-made), source, reason, retryAt, evidence.',
    ),
});

export type DecisionEvent = z.infer<typeof decisionEventSchema>;

export function decisionEvent({ id, kind, at, service, cell, by, drill, what, data }: Decision): DecisionEvent {
  return {
    specversion: '1.0',
    id,
    source: `/understudy/${by.split('/').map(encodeURIComponent).join('/')}`,
    type: `understudy.decision.${kind}`,
    subject: `${service}/${cell}`,
    time: at,
    datacontenttype: 'application/json',
    dataschema: dataSchemaUri,
    data: { ...data, service, cell, by, drill, what },
  };
}
