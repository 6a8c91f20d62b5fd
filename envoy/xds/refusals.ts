/** What a proxy has refused, in its own words: these versions are never sent to it again. */
import type { ResourceType } from '../resources/resource';
import type { VersionedResource } from './resource-set';

export interface Rejection {
  type: ResourceType;
  name: string;
  version: string;
  error: string;
}

/** A proxy that refuses every version of a resource is not to fill our memory. */
const keptPerName = 32;
/** A proxy says in how many words it likes why it refuses. */
const keptCharacters = 1000;

const none: ReadonlyMap<string, string> = new Map();

export class Refusals {
  /** Error by version, by name; most streams never refuse anything. */
  private byName: Map<string, Map<string, string>> | undefined;

  add({ type, name, version }: VersionedResource, error: string): Rejection {
    const words = error.slice(0, keptCharacters);
    this.byName ??= new Map();
    const versions = this.byName.get(name) ?? new Map<string, string>();
    this.byName.set(name, versions.set(version, words));
    for (const oldest of versions.keys()) {
      if (versions.size <= keptPerName) break;
      versions.delete(oldest);
    }
    return { type, name, version, error: words };
  }

  /** What an earlier stream of the same proxy has refused. */
  take(name: string, refused: ReadonlyMap<string, string>): void {
    if (refused.size > 0) (this.byName ??= new Map()).set(name, new Map(refused));
  }

  error({ name, version }: VersionedResource): string | undefined {
    return this.byName?.get(name)?.get(version);
  }

  of(name: string): ReadonlyMap<string, string> {
    return this.byName?.get(name) ?? none;
  }

  names(): Iterable<string> {
    return this.byName?.keys() ?? [];
  }
}

/** Who of a refused response is to blame: those the error names, of the new ones if possible; else all that was new. */
export function culpritsOf(sent: VersionedResource[], fresh: VersionedResource[], error: string): VersionedResource[] {
  const named = (of: VersionedResource[]): VersionedResource[] => of.filter(({ name }) => mentions(error, name));
  return [named(fresh), fresh, named(sent), sent].find((some) => some.length > 0) ?? [];
}

/** Whether the text names the resource as a word of its own: `shop` is not named by `shop|a`. */
export function mentions(text: string, name: string): boolean {
  const literal = name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`(^|[^\\w|-])${literal}($|[^\\w|-])`).test(text);
}
