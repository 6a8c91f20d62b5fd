/** Reading of JSON that nobody vouches for: own properties only, numbers however they are written. */

export type JsonObject = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A property of the object itself; what it inherits is none of ours. */
export function own(object: JsonObject, name: string): unknown {
  return Object.hasOwn(object, name) ? object[name] : undefined;
}

export function text(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : undefined;
}

/** A number, also as text (`"12"`, `"NaN"`, `"+Inf"`); undefined if it is none. */
export function numeric(value: unknown): number | undefined {
  if (typeof value === 'number') return value;
  if (typeof value !== 'string' || value.trim() === '') return undefined;
  if (value === '+Inf' || value === 'Inf') return Infinity;
  if (value === '-Inf') return -Infinity;
  const number = Number(value);
  return Number.isNaN(number) && value !== 'NaN' ? undefined : number;
}

/** Seconds, milliseconds, micro- or nanoseconds since the epoch, told apart by their size, as milliseconds. */
export function epochMillis(value: number): number {
  const magnitude = Math.abs(value);
  if (magnitude < 1e11) return value * 1e3;
  if (magnitude < 1e14) return value;
  return magnitude < 1e17 ? value / 1e3 : value / 1e6;
}
