/** The reference service's state: items held in memory, and the slow store behind them that fetches what is missing. */
import { seededRandom } from './random';

export interface Item {
  id: number;
  name: string;
  priceCents: number;
  inStock: number;
  tags: string[];
}

const words = ['amber', 'birch', 'cobalt', 'dune', 'ember', 'fjord', 'grove', 'harbor', 'iris', 'juniper'];

/** The item as the store holds it: the same on every instance and in every run. */
export function itemFromStore(id: number): Item {
  const random = seededRandom(id * 2654435761);
  const word = (): string => words[Math.floor(random() * words.length)] ?? 'amber';
  return {
    id,
    name: `${word()} ${word()} ${id}`,
    priceCents: 100 + Math.floor(random() * 100_000),
    inStock: Math.floor(random() * 500),
    tags: [word(), word()],
  };
}

/** Everything the store holds: ids 0 to `size` - 1. */
export class Catalogue {
  private readonly inMemory = new Map<number, Item>();

  constructor(readonly size: number) {}

  get entries(): number {
    return this.inMemory.size;
  }

  knows(id: number): boolean {
    return Number.isInteger(id) && id >= 0 && id < this.size;
  }

  isInMemory(id: number): boolean {
    return this.inMemory.has(id);
  }

  /** The item; from now on it is in memory. */
  read(id: number): Item {
    let item = this.inMemory.get(id);
    if (item === undefined) {
      item = itemFromStore(id);
      this.inMemory.set(id, item);
    }
    return item;
  }

  loadAll(): void {
    for (let id = 0; id < this.size; id++) this.read(id);
  }

  /** Takes over a peer's items. Returns how many are in memory afterwards. */
  load(items: readonly Item[]): number {
    for (const item of items) if (this.knows(item.id)) this.inMemory.set(item.id, item);
    return this.inMemory.size;
  }

  snapshot(): Item[] {
    return [...this.inMemory.values()];
  }
}
