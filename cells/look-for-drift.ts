/** Looks where declared cells differ from their blueprints now: a synthetic cell made from these would be no twin. */
import type { BlueprintVersion, CellRecord } from '../blueprints/records';
import type { ConfigurationStore } from '../blueprints/store';
import { bounded } from './bounded';
import type { CellDrift } from './capture/capture-cell';

export interface FoundDrift extends CellDrift {
  cell: string;
  service: string;
  /** `name@version`. */
  blueprint: string;
  /** ISO 8601: when the cell was seen last. */
  at: string;
}

export interface UnseenCell {
  cell: string;
  trouble: string;
  /** The others of its provider had used up the time of that look: it comes first in the next. */
  notAsked?: true;
}

export interface DriftLook {
  cells: FoundDrift[];
  /** Cells that could not be looked at, and why. What runs elsewhere is not among them. */
  silent: UnseenCell[];
}

type DriftStore = Pick<ConfigurationStore, 'cells' | 'blueprint'>;
/** What is seen of one cell; `compared` is empty where nothing of it can be seen from here. */
type LookAtCell = (cell: CellRecord, blueprint: BlueprintVersion) => Promise<CellDrift>;

export interface LookTimes {
  /** For one cell, in milliseconds. @default 20,000 */
  withinMs?: number;
  /** For all cells of one provider: none is begun later than that, in milliseconds. @default 120,000 */
  providerWithinMs?: number;
  nowMs?: number;
}

/**
 * `before`: the last look. What was seen then of a cell that cannot be seen now, or only by a worker on another machine,
 * stays as long as the cell has the same blueprint. What fails at one cell is told of that cell alone, and no provider
 * waits for another.
 */
export async function lookForDrift(
  store: DriftStore,
  lookAt: LookAtCell,
  before: DriftLook | undefined,
  { withinMs = 20_000, providerWithinMs = 120_000, nowMs = Date.now() }: LookTimes = {},
): Promise<DriftLook> {
  const byProvider = new Map<string, [CellRecord, BlueprintVersion][]>();
  for (const cell of inTurn(await store.cells(), before?.silent ?? [])) {
    const blueprint =
      cell.role === 'synthetic' ? undefined : await store.blueprint(cell.blueprint.name, cell.blueprint.version);
    if (!blueprint) continue;
    const { provider } = blueprint.spec;
    byProvider.set(provider, [...(byProvider.get(provider) ?? []), [cell, blueprint]]);
  }
  const look: DriftLook = { cells: [], silent: [] };
  await Promise.all([...byProvider].map(([provider, cells]) => lookAtAll(provider, cells)));
  look.cells.sort((a, b) => a.cell.localeCompare(b.cell));
  look.silent.sort((a, b) => a.cell.localeCompare(b.cell));
  return look;

  async function lookAtAll(provider: string, cells: [CellRecord, BlueprintVersion][]): Promise<void> {
    const endMs = performance.now() + providerWithinMs;
    for (const [cell, blueprint] of cells) {
      const { name, service } = cell;
      const of = `${blueprint.name}@${blueprint.version}`;
      let found: CellDrift | undefined;
      if (performance.now() < endMs)
        found = await bounded(withinMs, `what runs of ${name}`, lookAt(cell, blueprint)).catch((error: Error) => {
          look.silent.push({ cell: name, trouble: error.message });
          return undefined;
        });
      else {
        const trouble = `the other cells of provider ${provider} took the ${providerWithinMs / 1000} s that it has in one look; it comes first in the next`;
        look.silent.push({ cell: name, trouble, notAsked: true });
      }
      const last = before?.cells.find((one) => one.cell === name && one.blueprint === of);
      const at = new Date(nowMs).toISOString();
      if (found && found.compared.length > 0) look.cells.push({ cell: name, service, blueprint: of, at, ...found });
      else if (last) look.cells.push(last);
    }
  }
}

/** Who was left out comes first, who failed last: cells that hang keep none of the others from being seen for long. */
function inTurn(cells: readonly CellRecord[], silent: readonly UnseenCell[]): CellRecord[] {
  const turnOf = ({ name }: CellRecord) => {
    const last = silent.find(({ cell }) => cell === name);
    return last === undefined ? 1 : last.notAsked ? 0 : 2;
  };
  return [...cells].sort((a, b) => turnOf(a) - turnOf(b));
}
