/** Which cell and which instance a measurement belongs to: no format says it, so ordered steps look where it may stand. */
import type { IdentityStep } from '../../blueprints/telemetry-settings';
import { headerText, isName, type RecordContext } from './decoder';
import type { Identity, SampleSink } from './sink';

/** A field of a measurement by name: attribute, label, tag or JSON path, as the format has it. */
export type Fields = (name: string) => string | undefined;

/** Finds the declared instance behind a name or an address. `instance` is left out if several of one cell share it. */
export type Locate = (nameOrAddress: string) => { cell: string; instance?: string } | undefined;

/** What cannot be resolved goes to the sink as `no-cell` or `no-instance`, with `where` and everything that was tried. */
export type Resolver = (
  fields: Fields,
  record: RecordContext | undefined,
  sink: SampleSink,
  where: string,
) => Identity | undefined;

const instanceAttributes = ['service.instance.id', 'instance', 'k8s.pod.name', 'pod', 'host.name', 'host'];

/** What is tried where nothing is configured. */
export const defaultIdentity: readonly IdentityStep[] = [
  { kind: 'attribute', name: 'cell.id', gives: 'cell' },
  { kind: 'attribute', name: 'cell', gives: 'cell' },
  { kind: 'declared', attributes: ['service.instance.id', 'instance', 'host.name', 'host'] },
];

type Step = (fields: Fields, record: RecordContext | undefined) => Partial<Identity> | undefined;

interface NamedStep {
  name: string;
  find: Step;
}

export function createResolver(steps: readonly IdentityStep[] = defaultIdentity, locate?: Locate): Resolver {
  const named = steps.map((step) => namedStep(step, locate));
  const tried = named.map(({ name }) => name).join(', ');
  return (fields, record, sink, where) => {
    let cell: string | undefined;
    let instance: string | undefined;
    for (const { find } of named) {
      const found = find(fields, record);
      if (cell === undefined && isName(found?.cell)) cell = found.cell;
      if (instance === undefined && isName(found?.instance)) instance = found.instance;
      if (cell !== undefined && instance !== undefined) return { cell, instance };
    }
    for (const name of instanceAttributes) {
      if (instance !== undefined) break;
      const value = fields(name);
      if (isName(value)) instance = value;
    }
    if (cell === undefined) sink.object('no-cell', `${where}: no cell by any of: ${tried}`);
    else if (instance === undefined) {
      sink.object('no-instance', `${where}: no instance by any of: ${tried}, ${instanceAttributes.join(', ')}`);
    } else return { cell, instance };
    return undefined;
  };
}

function namedStep(step: IdentityStep, locate: Locate | undefined): NamedStep {
  switch (step.kind) {
    case 'attribute': {
      const read = reading(step);
      return { name: `attribute ${step.name}`, find: (fields) => read(fields(step.name)) };
    }
    case 'key': {
      const read = reading(step);
      return { name: 'record key', find: (_fields, record) => read(record?.key?.toString('utf8')) };
    }
    case 'header': {
      const read = reading(step);
      return { name: `header ${step.name}`, find: (_fields, record) => read(headerText(record?.headers, step.name)) };
    }
    case 'declared':
      return {
        name: `declared instance of ${step.attributes.join(' or ')}`,
        find: (fields) => {
          for (const name of step.attributes) {
            const value = fields(name);
            const found = isName(value) ? locate?.(value) : undefined;
            if (found) return found;
          }
          return undefined;
        },
      };
    case 'constant':
      return { name: `constant ${step.cell}`, find: () => ({ cell: step.cell }) };
  }
}

/** The text as the name itself, or what the pattern's groups take out of it. */
function reading(step: { pattern?: string | undefined; gives: 'cell' | 'instance' }) {
  if (step.pattern === undefined) {
    return (text: string | undefined): Partial<Identity> | undefined => (text ? { [step.gives]: text } : undefined);
  }
  const pattern = new RegExp(step.pattern, 'u');
  return (text: string | undefined): Partial<Identity> | undefined => {
    // No name is longer; a hostile text may not keep the pattern busy.
    if (!isName(text)) return undefined;
    return pattern.exec(text)?.groups;
  };
}
