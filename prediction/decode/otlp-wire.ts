/** Reads an OTLP metrics request, protobuf or JSON, into one loose shape that the mapping walks. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import * as protobuf from 'protobufjs';
import { packageRoot } from '../../package-root';

const protoRoot = join(packageRoot, 'vendor', 'opentelemetry-proto');

let requestType: protobuf.Type | undefined;

function loadRequestType(): protobuf.Type {
  if (requestType) return requestType;
  const root = new protobuf.Root();
  root.resolvePath = (_origin, target) => join(protoRoot, target);
  try {
    root.loadSync('opentelemetry/proto/collector/metrics/v1/metrics_service.proto');
  } catch (error) {
    const there = readdirSync(packageRoot).includes('vendor') ? 'is damaged' : 'is missing';
    throw new Error(`${protoRoot} ${there}: the installation of Understudy is incomplete.`, { cause: error });
  }
  requestType = root.lookupType('opentelemetry.proto.collector.metrics.v1.ExportMetricsServiceRequest');
  return requestType;
}

/** Any object of the request: a decoded message or parsed JSON. Every field is checked where it is read. */
export type Loose = Readonly<Record<string, unknown>>;

/** Throws if the bytes are no protobuf message of that type. */
export function readProtobuf(value: Buffer): Loose {
  const message: unknown = loadRequestType().decode(value);
  return message as Loose;
}

/** The objects of a repeated field; anything else is left out. */
export function objects(value: unknown): Loose[] {
  return Array.isArray(value) ? value.filter((v): v is Loose => typeof v === 'object' && v !== null) : [];
}

export function object(value: unknown): Loose | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Loose) : undefined;
}

/** A number however OTLP writes it: number, 64-bit integer object, or (JSON) string. NaN if it is none. */
export function number(value: unknown): number {
  if (typeof value === 'number') return value;
  if (typeof value === 'string') return value.trim() === '' ? NaN : Number(value);
  if (typeof value === 'object' && value !== null && 'low' in value && 'high' in value) {
    const { low, high, unsigned } = value as { low: number; high: number; unsigned?: boolean };
    return (unsigned ? high >>> 0 : high) * 4294967296 + (low >>> 0);
  }
  return NaN;
}

export function numbers(value: unknown): number[] {
  return Array.isArray(value) ? value.map(number) : [];
}

/** Nanoseconds since the epoch as milliseconds; 0 when absent. */
export function millis(nanos: unknown): number {
  const n = number(nanos);
  return Number.isFinite(n) && n > 0 ? Math.round(n / 1e6) : 0;
}

export type Attributes = ReadonlyMap<string, string>;

export function attributesOf(list: unknown): Attributes {
  const map = new Map<string, string>();
  for (const entry of objects(list)) {
    const value = object(entry.value);
    if (typeof entry.key !== 'string' || !value) continue;
    if (Object.hasOwn(value, 'stringValue')) {
      if (typeof value.stringValue === 'string') map.set(entry.key, value.stringValue);
    } else if (Object.hasOwn(value, 'intValue')) map.set(entry.key, String(number(value.intValue)));
    else if (Object.hasOwn(value, 'doubleValue')) map.set(entry.key, String(number(value.doubleValue)));
    else if (Object.hasOwn(value, 'boolValue')) map.set(entry.key, String(value.boolValue === true));
  }
  return map;
}

/** The attributes in a fixed order: what tells one series of a metric from another. */
export function seriesKey(attributes: Attributes): string {
  return JSON.stringify([...attributes].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)));
}

/** A number point's value. Undefined if there is none (protobuf fills absent fields with defaults, hence `hasOwn`). */
export function pointValue(point: Loose): number | undefined {
  if ((number(point.flags) & 1) === 1) return undefined;
  const own = Object.hasOwn(point, 'asDouble')
    ? point.asDouble
    : Object.hasOwn(point, 'asInt')
      ? point.asInt
      : undefined;
  return own === undefined ? undefined : number(own);
}
