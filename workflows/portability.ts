/** Would the cause follow the traffic? A synthetic cell has its source's build, configuration, dependencies and zone. */
import type { Driver } from '../prediction/contracts';
import type { FleetFacts, RisingCell } from './fleet';

/** A change this young is suspected when cells begin to rise. */
const suspectedForMs = 60 * 60_000;

/**
 * Why the synthetic cell would probably fail of the same cause, or null. One rising cell alone proves nothing: the cause
 * is in what it has in common with others, so a second one is needed each time.
 */
export function whyItWouldFollow(facts: FleetFacts, own: RisingCell, drivers: readonly Driver[]): string | null {
  const others = facts.rising.filter((other) => other.cell !== own.cell);
  const metric = drivers.find((d) => d.direction === 'up')?.metric ?? own.metric;
  const sameBuild = others.filter((o) => o.blueprint === own.blueprint);
  if (sameBuild.length > 0 && facts.blueprintAgeMs !== null && facts.blueprintAgeMs < suspectedForMs) {
    const minutes = Math.max(1, Math.round(facts.blueprintAgeMs / 60_000));
    return `${own.blueprint}, of which it would be made, changed ${minutes} min ago and ${names(sameBuild)} made from it is predicted to fail too`;
  }
  const siblings = others.filter((o) => o.service === own.service);
  if (metric?.startsWith('dependency.') && siblings.some((o) => o.metric?.startsWith('dependency.'))) {
    return `${names(siblings)} of the same service is predicted to fail by its dependency too, which the synthetic cell would share`;
  }
  if (metric === 'http.request_rate' && siblings.some((o) => o.metric === 'http.request_rate')) {
    return `the load is about to fail ${names(siblings)} too: it would go with the traffic`;
  }
  const neighbours = others.filter((o) => o.zone === own.zone);
  const elsewhere = others.some((o) => o.zone !== own.zone);
  const services = new Set([own, ...neighbours].map((o) => o.service));
  if (neighbours.length > 1 && services.size > 1 && !elsewhere && manyZones(facts)) {
    return `${names(neighbours)} in zone ${own.zone} is predicted to fail too and none elsewhere: the synthetic cell would stand in the same zone`;
  }
  return null;
}

/** Where all cells stand in one zone, being in it says nothing. */
function manyZones({ population }: FleetFacts): boolean {
  const fleet = population.fleet ?? 0;
  return Object.entries(population).some(([trait, cells]) => trait.startsWith('zone:') && cells < fleet);
}

function names(cells: RisingCell[]): string {
  const first = cells.slice(0, 3).map((c) => c.cell);
  return cells.length > 3 ? `${first.join(', ')} and ${cells.length - 3} more` : first.join(', ');
}
