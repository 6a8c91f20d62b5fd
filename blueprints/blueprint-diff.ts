/** How two blueprints differ, and which differences weaken the protection of a cell or what it can carry. Pure. */
import type { BlueprintDocument } from './schema';

export interface BlueprintDifference {
  path: string;
  /** JSON of what stands there; undefined: nothing. */
  from: unknown;
  to: unknown;
  /** `function`: something else would run, or elsewhere. */
  matters: 'protection' | 'capacity' | 'function';
  /** What the second one is compared with the first; `other`: neither can be said. */
  change: 'weaker' | 'stronger' | 'less' | 'more' | 'other';
  /** One sentence for a person. */
  text: string;
}

type Judge = (from: unknown, to: unknown) => BlueprintDifference['change'];

const other: Judge = () => 'other';
/** Of numbers: more is more capacity. Left out counts as without limit. */
const capacity: Judge = (from, to) => (numberOf(to) > numberOf(from) ? 'more' : 'less');
/** Of limits that protect: more is weaker. */
const bound: Judge = (from, to) => (numberOf(to) > numberOf(from) ? 'weaker' : 'stronger');
const numberOf = (value: unknown) => (typeof value === 'number' ? value : Infinity);

/** Of lists of what is allowed: anything added is weaker. Left out allows whatever the source may. */
const allowances: Judge = (from, to) => {
  if (to === undefined) return 'weaker';
  if (from === undefined) return 'stronger';
  const before = new Set(texts(from));
  const after = new Set(texts(to));
  const added = [...after].some((one) => !before.has(one));
  const removed = [...before].some((one) => !after.has(one));
  return added ? 'weaker' : removed ? 'stronger' : 'other';
};
const texts = (value: unknown) => (Array.isArray(value) ? value.map((one) => JSON.stringify(one)) : []);

const isLoopback = (value: unknown) => typeof value === 'string' && (value.startsWith('127.') || value === '::1');
const listening: Judge = (from, to) => {
  if (isLoopback(from) === isLoopback(to)) return ['0.0.0.0', '::'].includes(String(to)) ? 'weaker' : 'other';
  return isLoopback(from) ? 'weaker' : 'stronger';
};
const user: Judge = (from, to) => {
  if (to === 'root' || to === undefined) return from === 'root' ? 'other' : 'weaker';
  return from === 'root' || from === undefined ? 'stronger' : 'other';
};
const demanded: Judge = (from, to) => {
  if (to === true) return 'stronger';
  return from === true ? 'weaker' : 'other';
};
const strictness = ['none', undefined, 'filter', 'strict'];
const filter: Judge = (from, to) =>
  strictness.indexOf(to as string) < strictness.indexOf(from as string) ? 'weaker' : 'stronger';

/** Of bounds of files: more that can be written or seen is weaker, whatever else is stronger. */
const bounds: Judge = (from, to) => {
  if (to === undefined) return 'weaker';
  if (from === undefined) return 'stronger';
  const [before, after] = [from as FileBounds, to as FileBounds];
  const writable = allowances(before.writable, after.writable);
  // What is hidden is the reverse of what is allowed.
  const hidden = allowances(after.hidden, before.hidden);
  return [writable, hidden].includes('weaker') ? 'weaker' : 'stronger';
};
type FileBounds = NonNullable<BlueprintDocument['security']['files']>;

/** What a path is about; a part is compared as a whole, its deepest parts where nothing stands here. */
const judged: Record<string, [BlueprintDifference['matters'], Judge]> = {
  'network.address': ['protection', listening],
  'network.egress': ['protection', allowances],
  'security.user': ['protection', user],
  'security.identity': ['protection', other],
  'security.secrets': ['protection', other],
  'security.files': ['protection', bounds],
  'security.capabilities': ['protection', allowances],
  'security.noNewPrivileges': ['protection', demanded],
  'security.seccomp': ['protection', filter],
  'resources.enforce': ['protection', demanded],
  'resources.processes': ['protection', bound],
  'resources.openFiles': ['protection', bound],
  'resources.instances': ['capacity', capacity],
  'resources.memoryLimitMib': ['capacity', capacity],
  'resources.cpu': ['capacity', capacity],
  'resources.memoryRequestMib': ['capacity', other],
  'resources.cpuRequest': ['capacity', other],
  'capacity.requestsPerSecond': ['capacity', capacity],
  'image.command': ['function', other],
  dependencies: ['function', other],
  warmUp: ['function', other],
};

/** From the first to the second, in the order of the document; names and kinds are not compared. */
export function diffBlueprints(from: BlueprintDocument, to: BlueprintDocument): BlueprintDifference[] {
  return differences('', { ...from, name: '' }, { ...to, name: '' });
}

function differences(path: string, from: unknown, to: unknown): BlueprintDifference[] {
  const judge = judged[path];
  if (!judge && isObject(from ?? {}) && isObject(to ?? {}) && (isObject(from) || isObject(to))) {
    const [before, after] = [(from ?? {}) as Record<string, unknown>, (to ?? {}) as Record<string, unknown>];
    const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])];
    return keys.flatMap((key) => differences(path ? `${path}.${key}` : key, before[key], after[key]));
  }
  if (JSON.stringify(from) === JSON.stringify(to)) return [];
  const [matters, judging] = judge ?? (['function', other] as const);
  const change = judging(from, to);
  return [{ path, from, to, matters, change, text: `${path}: ${said(from)} becomes ${said(to)}` }];
}

function isObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function said(value: unknown): string {
  if (value === undefined) return 'nothing';
  return typeof value === 'string' ? value : JSON.stringify(value);
}

const headings: [BlueprintDifference['matters'], BlueprintDifference['change'], string][] = [
  ['protection', 'weaker', 'Protection becomes weaker'],
  ['protection', 'other', 'Protection becomes another'],
  ['protection', 'stronger', 'Protection becomes stronger'],
  ['capacity', 'less', 'Capacity becomes less'],
  ['capacity', 'more', 'Capacity becomes more'],
  ['capacity', 'other', 'Needs change'],
  ['function', 'other', 'Something else runs'],
];

/** What matters most first. */
export function diffText(found: readonly BlueprintDifference[]): string {
  if (found.length === 0) return 'No difference.';
  return headings
    .map(([matters, change, heading]) => {
      const lines = found.filter((one) => one.matters === matters && one.change === change);
      return lines.length === 0 ? '' : `${heading}:\n${lines.map(({ text }) => `  ${text}`).join('\n')}`;
    })
    .filter(Boolean)
    .join('\n');
}
