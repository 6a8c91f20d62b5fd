/** What a command of the user's own is told and has to answer, one operation per call. docs/providers.md explains it. */
import { z } from 'zod';
import { instanceNames, type CellSpec, type IdleWay, type ObservedCell } from './provider';

export const execContract = 'understudy.exec/v1';

/** By this exit code a command of the user's own says that asking again will not help. */
export const refusedCode = 3;

export type ExecOperation = 'ensure' | 'observe' | 'idle' | 'renew' | 'destroy' | 'remove-lapsed' | 'list';

export interface ExecCall {
  contract: typeof execContract;
  operation: ExecOperation;
  /** Not for list. */
  cell?: string;
  /** For ensure. `command` and `environment` of its blueprint still have their words in braces. */
  spec?: CellSpec;
  /** Names of the instances to be made, for ensure. */
  instances?: string[];
  /** For idle: how the cell is to rest. */
  idle?: IdleWay;
  /** For renew and for an ensure whose cell has a lease. */
  expiresAt?: string;
}

const instanceSchema = z.object({
  name: z.string().min(1),
  address: z.string(),
  port: z.number().int().min(0).max(65_535),
  phase: z.enum(['absent', 'provisioning', 'ready', 'idle', 'failed', 'deleting']),
  reason: z.string().max(4096).optional(),
  readinessPath: z.string().startsWith('/').default('/healthz'),
  readinessProtocol: z.enum(['http/1.1', 'http/2', 'grpc']).default('http/1.1'),
  /** It has an identity, and is asked over TLS. */
  tls: z.boolean().default(false),
});

const cellSchema = z
  .object({
    cell: z.string().min(1),
    service: z.string().default(''),
    owner: z.string().default(''),
    phase: z.enum(['absent', 'deleting']).optional(),
    instances: z.array(instanceSchema).max(64).default([]),
    expiresAt: z.iso.datetime({ offset: true }).optional(),
  })
  .superRefine(({ phase, instances }, context) => {
    if (phase === undefined && instances.length === 0)
      context.addIssue({
        code: 'custom',
        path: ['instances'],
        message: 'is empty, and phase says neither absent nor deleting',
      });
    instances.forEach(({ phase: own, address, port }, index) => {
      if (own === 'ready' && (address === '' || port === 0))
        context.addIssue({
          code: 'custom',
          path: ['instances', index],
          message: 'is called ready and has no address and port',
        });
    });
    const names = instances.map(({ name }) => name);
    if (new Set(names).size < names.length)
      context.addIssue({ code: 'custom', path: ['instances'], message: 'two of them have the same name' });
  });

export type AnsweredCell = z.infer<typeof cellSchema>;

const answers = {
  ensure: z.object({ cell: cellSchema }),
  observe: z.object({ cell: cellSchema }),
  idle: z.object({ cell: cellSchema }),
  renew: z.object({ renewed: z.boolean() }),
  destroy: z.object({}),
  'remove-lapsed': z.object({ removed: z.boolean() }),
  list: z.object({ cells: z.array(cellSchema).max(100_000) }),
} as const;

export type ExecAnswer<O extends ExecOperation> = z.infer<(typeof answers)[O]>;

/** Throws an Error that says what is wrong with the answer, and where. */
export function readAnswer<O extends ExecOperation>(call: ExecCall & { operation: O }, text: string): ExecAnswer<O> {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    const shown = text.trim().slice(0, 80);
    throw new Error(shown === '' ? 'answered nothing' : `answered what is not JSON: ${JSON.stringify(shown)}`);
  }
  const parsed = answers[call.operation].safeParse(json);
  if (!parsed.success) {
    const reasons = parsed.error.issues
      .slice(0, 3)
      .map(({ path, message }) => `${path.join('.') || '(top)'}: ${message}`);
    throw new Error(`answered what the contract does not know: ${reasons.join('; ')}`);
  }
  const { cell } = parsed.data as { cell?: AnsweredCell };
  if (cell && cell.cell !== call.cell)
    throw new Error(`was asked for cell ${call.cell} and answered for ${JSON.stringify(cell.cell)}`);
  if (cell && call.spec && cell.phase === undefined) checkInstances(cell, call.spec);
  return parsed.data as ExecAnswer<O>;
}

/** Exactly the instances that were asked for: not one too few, and none made twice. */
function checkInstances({ instances }: AnsweredCell, spec: CellSpec): void {
  const wanted = instanceNames(spec).sort().join(', ');
  const made = instances
    .map(({ name }) => name)
    .sort()
    .join(', ');
  if (made !== wanted) throw new Error(`was asked for the instances ${wanted} and has ${made}`);
}

/** The answered cell without what only the check of its readiness needs. */
export function withoutPaths({ instances, phase, ...cell }: AnsweredCell): Omit<
  ObservedCell,
  'phase' | 'observedAt'
> & {
  phase?: 'absent' | 'deleting';
} {
  const { service, owner, expiresAt } = cell;
  return {
    cell: cell.cell,
    service,
    owner,
    ...(phase && { phase }),
    ...(expiresAt !== undefined && { expiresAt }),
    instances: instances.map(({ name, address, port, phase: own, reason }) => ({
      name,
      address,
      port,
      phase: own,
      ...(reason !== undefined && { reason }),
    })),
  };
}
