/** Drafts all documents of a service from its running instances: service, cells, and the blueprint of the first one. Pure. */
import { draftText, type Draft } from './draft';

export interface RunningCell {
  name: string;
  instances: { address: string; port: number }[];
}

export interface ServiceDraftOf {
  service: string;
  /** Where callers will be accepted. */
  listenerPort: number;
  cells: readonly RunningCell[];
  blueprint: Draft;
  /** The path that all of them answer well. */
  healthPath: string | undefined;
}

/** As YAML documents in one file, ready for `apply`: observed only, traffic in equal shares. */
export function serviceDraftText(of: ServiceDraftOf): string {
  const documents = [serviceDraft(of), ...of.cells.map((cell, index) => cellDraft(of.service, cell, index === 0))];
  return [...documents.map(draftText), draftText(withWarmUp(of))].join('---\n');
}

function serviceDraft({ service, listenerPort, cells, healthPath }: ServiceDraftOf): Draft {
  const share = Math.floor(10_000 / cells.length);
  const shares = cells.map(({ name }, index) => [name, index === 0 ? 10_000 - share * (cells.length - 1) : share]);
  return {
    document: {
      kind: 'Service',
      name: service,
      listener: { port: listenerPort },
      slo: { latencyMs: 250, errorRatio: 0.05 },
      healthCheck: { path: healthPath ?? '/healthz' },
      safeSplit: Object.fromEntries(shares) as Record<string, number>,
      policy: { autonomy: 'observe' },
    },
    remarks: [
      [['listener', 'port'], 'callers go here, to Envoy'],
      [['slo', 'latencyMs'], 'a slower answer has missed your objective'],
      [
        ['healthCheck', 'path'],
        healthPath === undefined
          ? 'NOT SEEN: none of the usual paths answered. A cell that does not answer this with 200 gets no traffic'
          : 'Envoy asks it; all instances answered',
      ],
      [['policy', 'autonomy'], 'then: advise, approve, act'],
    ],
    unseen: [],
  };
}

function cellDraft(service: string, { name, instances }: RunningCell, isFirst: boolean): Draft {
  const document = {
    kind: 'Cell',
    name,
    service,
    role: isFirst ? 'primary' : 'secondary',
    blueprint: service,
    instances: instances.map(({ address, port }, index) => ({ name: instanceName(name, index), address, port })),
  };
  return { document, remarks: [], unseen: [] };
}

/** What telemetry calls the instance, too. */
export const instanceName = (cell: string, index: number) => `${cell}-${index + 1}`;

/** With the steps that fit every service that answers a path. */
function withWarmUp({ blueprint, healthPath }: ServiceDraftOf): Draft {
  if (healthPath === undefined) return blueprint;
  const warmUp = [
    { kind: 'connections', perInstance: 4, path: healthPath },
    { kind: 'probe', path: healthPath, requests: 20 },
  ];
  const remark: Draft['remarks'][number] = [['warmUp', 1, 'path'], 'better: a path that callers often ask for'];
  return { ...blueprint, document: { ...blueprint.document, warmUp }, remarks: [...blueprint.remarks, remark] };
}
