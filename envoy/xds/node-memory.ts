/** What is remembered of a proxy between its streams, so that coming back does not bring it what it has refused. */
import type { ResourceType } from '../resources/resource';
import type { Recollection } from './subscription';

/** Of those that refuse anything; the oldest are forgotten, and are then sent a refused version once more. */
const keptNodes = 2000;

export class NodeMemory {
  private readonly byNode = new Map<string, Recollection[]>();

  /** Replaces what is remembered of the node. */
  keep(node: string, recollections: Recollection[]): void {
    this.byNode.delete(node);
    if (recollections.length === 0) return;
    this.byNode.set(node, recollections);
    for (const oldest of this.byNode.keys()) {
      if (this.byNode.size <= keptNodes) break;
      this.byNode.delete(oldest);
    }
  }

  of(node: string, type: ResourceType): Recollection[] {
    return this.byNode.get(node)?.filter((recollection) => recollection.type === type) ?? [];
  }
}
