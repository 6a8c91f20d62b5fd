/** What makes a split acceptable, decided without a database. */
import type { CellRecord, CellShare } from './records';
import type { ServiceDocument } from './schema';

/** The split a service begins with and returns to. */
export function safeSplit(service: ServiceDocument): CellShare[] {
  return Object.entries(service.safeSplit).map(([cell, shareBp]) => ({ cell, shareBp, coverInstances: 0 }));
}

/** A reason why a split cannot be, and where in it. */
export interface SplitViolation {
  /** Such as `split[0].share_bp`, named as on the wire. */
  field: string;
  problem: string;
}

/** Every reason why the split cannot be; none if it can. `cells` are the service's cells. */
export function splitProblems(split: CellShare[], cells: CellRecord[]): string[] {
  return splitViolations(split, cells).map(({ problem }) => problem);
}

export function splitViolations(split: CellShare[], cells: CellRecord[]): SplitViolation[] {
  const violations: SplitViolation[] = [];
  const known = new Map(cells.map((cell) => [cell.name, cell]));
  const named = new Set<string>();
  split.forEach(({ cell, shareBp, coverInstances }, i) => {
    const against = (field: string, problem: string): void =>
      void violations.push({ field: `split[${i}].${field}`, problem });
    if (named.has(cell)) against('cell', `cell ${cell} is named twice`);
    named.add(cell);
    if (!Number.isInteger(shareBp) || shareBp < 0 || shareBp > 10_000)
      against(
        'share_bp',
        `cell ${cell}: the share must be a whole number of basis points from 0 to 10000, not ${shareBp}`,
      );
    if (!Number.isInteger(coverInstances) || coverInstances < 0)
      against(
        'cover_instances',
        `cell ${cell}: the number of cover instances must be a whole number, not ${coverInstances}`,
      );
    const record = known.get(cell);
    if (!record) {
      const has = [...known.keys()].join(', ') || 'none';
      return against('cell', `cell ${cell} is not a cell of the service (it has: ${has})`);
    }
    const instances = record.instances.length;
    if (record.state === 'retired') against('cell', `cell ${cell} is being retired`);
    else if (coverInstances > instances)
      against('cover_instances', `cell ${cell} has ${instances} instances, ${coverInstances} of which cannot be cover`);
    else if (shareBp > 0 && instances === 0) against('share_bp', `cell ${cell} has no instances to take ${shareBp} bp`);
    else if (shareBp > 0 && coverInstances === instances)
      against(
        'cover_instances',
        `cell ${cell}: all ${instances} instances are cover, none is left to take ${shareBp} bp`,
      );
  });
  const sum = split.reduce((total, { shareBp }) => total + shareBp, 0);
  if (sum !== 10_000) violations.push({ field: 'split', problem: `the shares add up to ${sum}, not 10000` });
  return violations;
}
