/** Paths within documents: as text for people, and where two documents differ. */

/** `policy.prepare.enter`, `instances[0].port`; the whole document is `(document)`. */
export function pathText(path: readonly PropertyKey[]): string {
  let text = '';
  for (const key of path) {
    if (typeof key === 'number') text += `[${key}]`;
    else text += text === '' ? String(key) : `.${String(key)}`;
  }
  return text || '(document)';
}

/** The deepest paths at which two JSON values differ, in the order of the second one. */
export function differingPaths(before: unknown, after: unknown, path: PropertyKey[] = []): string[] {
  if (Array.isArray(before) && Array.isArray(after)) {
    const longest = Math.max(before.length, after.length);
    return Array.from({ length: longest }, (_, i) => differingPaths(before[i], after[i], [...path, i])).flat();
  }
  if (isRecord(before) && isRecord(after)) {
    const keys = new Set([...Object.keys(after), ...Object.keys(before)]);
    return [...keys].flatMap((key) => differingPaths(before[key], after[key], [...path, key]));
  }
  return Object.is(before, after) ? [] : [pathText(path)];
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
