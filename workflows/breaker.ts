/** The breaker on predictions: many cells rising together are one cause until shown otherwise. Names the probable one. */
import type { Policy } from '../blueprints/schema';
import type { FleetFacts, RisingCell } from './fleet';
import { traitsOf } from './fleet';

export interface CommonCause {
  /** The trait in common, `zone:a`, or `fleet`. */
  trait: string;
  cells: number;
  /** How many cells have the trait at all. */
  of: number;
  /** One sentence for a person. */
  what: string;
}

const most = 0.75;

/**
 * The common cause of the predictions around this one, or null where they may be a coincidence: fewer than
 * `breaker.cells` within `breaker.windowS`, or less than `breaker.share` of every group that they have in common.
 */
export function commonCause(facts: FleetFacts, own: RisingCell, policy: Policy['breaker']): CommonCause | null {
  const together = [own, ...facts.rising.filter((other) => other.cell !== own.cell)].filter(
    (cell) => Math.abs(cell.sinceMs - own.sinceMs) <= policy.windowS * 1000,
  );
  const groups = traitsOf(own).map((trait) => {
    const members = together.filter((cell) => traitsOf(cell).includes(trait));
    return { trait, members, of: Math.max(members.length, facts.population[trait] ?? members.length) };
  });
  const tripped = groups.filter(
    ({ members, of }) => members.length >= policy.cells && members.length / of >= policy.share,
  );
  // The group that is hit most completely, and of two such the larger one, names the cause best.
  const [worst] = tripped.sort(
    (a, b) => b.members.length / b.of - a.members.length / a.of || b.members.length - a.members.length,
  );
  if (!worst) return null;
  const { trait, members, of } = worst;
  const what =
    `${members.length} of ${of} cells ${inCommon(trait)} are predicted to fail within ${policy.windowS} s: ` +
    `probably ${probably(trait, members)}`;
  return { trait, cells: members.length, of, what };
}

function inCommon(trait: string): string {
  const [kind, name] = splitTrait(trait);
  return (
    { service: `of service ${name}`, zone: `in zone ${name}`, blueprint: `made from ${name}` }[kind] ?? 'of the fleet'
  );
}

/** What they have in common beside where they stand says more than that. */
function probably(trait: string, members: RisingCell[]): string {
  const [kind, name] = splitTrait(trait);
  const metric = common(members.map((m) => m.metric));
  if (metric?.startsWith('dependency.')) return 'a dependency they share';
  if (metric === 'http.request_rate') return 'the load on them';
  if (metric?.startsWith('network.')) return 'the network between them';
  if (metric?.startsWith('certificate.')) return 'certificates that end together';
  if (kind === 'zone') return `a fault of zone ${name}`;
  if (kind === 'blueprint') return `the build or configuration ${name}`;
  if (kind === 'service' && metric !== null) return `something all cells of ${name} are exposed to, shown by ${metric}`;
  if (kind === 'service') return `something all cells of ${name} are exposed to`;
  const model = common(members.map((m) => m.model));
  return metric === null && model !== null
    ? `the telemetry or the model ${model}: the cells have nothing else in common`
    : `the telemetry${metric === null ? '' : ` of ${metric}`}: the cells have nothing else in common`;
}

function common(values: (string | null)[]): string | null {
  for (const value of new Set(values)) {
    if (value !== null && values.filter((v) => v === value).length >= most * values.length) return value;
  }
  return null;
}

function splitTrait(trait: string): [string, string] {
  const colon = trait.indexOf(':');
  return colon < 0 ? [trait, ''] : [trait.slice(0, colon), trait.slice(colon + 1)];
}
