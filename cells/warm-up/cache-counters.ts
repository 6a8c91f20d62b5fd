/** Reads one figure out of what an instance tells of its cache: JSON by a pointer, or text as Prometheus reads it. */

const series = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?(?:\s+(\S+))?/;

/**
 * @param where `/cache/hits`, a JSON pointer (RFC 6901), or `name{label="value"}`: all series of that name that have these
 * labels, added up. Undefined where the text has no such figure.
 */
export function figureIn(text: string, where: string): number | undefined {
  return where.startsWith('/') ? atPointer(text, where) : sumOfSeries(text, where);
}

function atPointer(text: string, pointer: string): number | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  for (const part of pointer.slice(1).split('/')) {
    const key = part.replaceAll('~1', '/').replaceAll('~0', '~');
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Record<string, unknown>)[key];
  }
  return typeof value === 'number' && Number.isFinite(value) ? value : undefined;
}

function sumOfSeries(text: string, where: string): number | undefined {
  const [, name, labels = ''] = series.exec(where) ?? [];
  const wanted = [...labelsOf(labels)];
  const values = text.split('\n').flatMap((line) => {
    const [, found, has = '', value] = series.exec(line) ?? [];
    if (found !== name || value === undefined || !Number.isFinite(Number(value))) return [];
    const those = labelsOf(has);
    return wanted.every(([key, text]) => those.get(key) === text) ? [Number(value)] : [];
  });
  return values.length === 0 ? undefined : values.reduce((sum, value) => sum + value, 0);
}

function labelsOf(text: string): Map<string, string> {
  return new Map([...text.matchAll(/(\w+)\s*=\s*"((?:[^"\\]|\\.)*)"/g)].map(([, key, value]) => [key!, value!]));
}
