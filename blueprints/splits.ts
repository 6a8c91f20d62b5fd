/** What makes a split acceptable, decided without a database. */
import type { CellRecord, CellShare } from './records';
import type { ServiceDocument } from './schema';

/** The split a service begins with and returns to. */
export function safeSplit(service: ServiceDocument): CellShare[] {
  return Object.entries(service.safeSplit).map(([cell, shareBp]) => ({ cell, shareBp, coverInstances: 0 }));
}

/** Every reason why the split cannot be; none if it can. `cells` are the service's cells. */
export function splitProblems(split: CellShare[], cells: CellRecord[]): string[] {
  const problems: string[] = [];
  const known = new Map(cells.map((cell) => [cell.name, cell]));
  const named = new Set<string>();
  for (const { cell, shareBp, coverInstances } of split) {
    if (named.has(cell)) problems.push(`cell ${cell} is named twice`);
    named.add(cell);
    if (!Number.isInteger(shareBp) || shareBp < 0 || shareBp > 10_000)
      problems.push(`cell ${cell}: the share must be a whole number of basis points from 0 to 10000, not ${shareBp}`);
    if (!Number.isInteger(coverInstances) || coverInstances < 0)
      problems.push(`cell ${cell}: the number of cover instances must be a whole number, not ${coverInstances}`);
    const record = known.get(cell);
    if (!record) {
      problems.push(`cell ${cell} is not a cell of the service (it has: ${[...known.keys()].join(', ') || 'none'})`);
      continue;
    }
    const instances = record.instances.length;
    if (record.state === 'retired') problems.push(`cell ${cell} is being retired`);
    else if (coverInstances > instances)
      problems.push(`cell ${cell} has ${instances} instances, ${coverInstances} of which cannot be cover`);
    else if (shareBp > 0 && instances === 0) problems.push(`cell ${cell} has no instances to take ${shareBp} bp`);
    else if (shareBp > 0 && coverInstances === instances)
      problems.push(`cell ${cell}: all ${instances} instances are cover, none is left to take ${shareBp} bp`);
  }
  const sum = split.reduce((total, { shareBp }) => total + shareBp, 0);
  if (sum !== 10_000) problems.push(`the shares add up to ${sum}, not 10000`);
  return problems;
}
