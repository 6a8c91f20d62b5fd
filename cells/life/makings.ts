/** What a recorded cell is made of: the version of its blueprint, the provider that runs it, its lease and its identity. */
import { RefusedError, type BlueprintVersion, type CellRecord } from '../../blueprints/records';
import type { ConfigurationStore } from '../../blueprints/store';
import type { IdentityKeeper } from '../identity/keeper';
import type { CellProvider, ObservedCell } from '../provider';

export interface Making {
  blueprint: BlueprintVersion;
  provider: CellProvider;
}

export class CellMakings {
  readonly providers: readonly CellProvider[];

  constructor(
    readonly store: ConfigurationStore,
    providers: CellProvider | readonly CellProvider[],
    readonly identities: IdentityKeeper,
    /** Seconds for which a cell is kept that nobody renews. Undefined: cells are made without a lease. */
    readonly leaseS: number | undefined,
  ) {
    this.providers = 'kind' in providers ? [providers] : providers;
  }

  /** RefusedError where this worker knows no such blueprint or provider. */
  async of({ name, blueprint }: CellRecord): Promise<Making> {
    const version = await this.store.blueprint(blueprint.name, blueprint.version);
    if (!version)
      throw new RefusedError(`cell ${name}: there is no version ${blueprint.version} of blueprint ${blueprint.name}`);
    const provider = this.providers.find(({ kind }) => kind === version.spec.provider);
    if (!provider)
      throw new RefusedError(
        `cell ${name}: no provider ${version.spec.provider} here (there is: ${this.providers.map(({ kind }) => kind).join(', ')})`,
      );
    return { blueprint: version, provider };
  }

  /** The provider begins to make it, or wakes it, for that owner. */
  async begin(cell: CellRecord, owner: string): Promise<void> {
    const { blueprint, provider } = await this.of(cell);
    await provider.ensure({
      cell: cell.name,
      service: cell.service,
      owner,
      blueprint: blueprint.spec,
      ...(this.leaseS !== undefined && { leaseS: this.leaseS }),
      ...(await this.identities.given(cell, blueprint)),
    });
  }

  /** What is really there of the cell now. */
  async observe(cell: CellRecord): Promise<ObservedCell> {
    return (await this.of(cell)).provider.observe(cell.name);
  }
}
