/** What the Synthetic Cell Manager does about identities: gives and renews them, speaks to cells by them, reads them back. */
import { RefusedError, type BlueprintVersion, type CellRecord } from '../../blueprints/records';
import type { ConfigurationStore } from '../../blueprints/store';
import type { IdentityFacts } from '../protection/identity-facts';
import { withIdentity, type ProtectionReport } from '../protection/read-back';
import { readIdentity } from '../protection/read-identity';
import { instanceNames, type CellSpec } from '../provider';
import { noIdentitySettings } from '../readiness';
import type { Reached } from '../http';
import type { CellIdentities } from './cell-identities';
import { cellName } from './names';

export interface RenewedIdentities {
  cell: string;
  /** Instances whose certificate is new. */
  instances: string[];
  /** Set if it could not be renewed now; it is tried again at the next round. */
  error?: Error;
}

export class IdentityKeeper {
  constructor(
    private readonly store: Pick<ConfigurationStore, 'blueprint' | 'cell' | 'cells'>,
    /** Left out: cells whose blueprint gives them an identity cannot be made. */
    private readonly identities: CellIdentities | undefined,
  ) {}

  /** What the cell's instances get with them; nothing for a blueprint without an identity. */
  async given({ name }: Pick<CellRecord, 'name'>, { spec }: BlueprintVersion): Promise<Pick<CellSpec, 'identity'>> {
    if (!spec.security.identity) return {};
    if (!this.identities) throw new RefusedError(noIdentitySettings(spec.name));
    const instances = instanceNames({ cell: name, blueprint: spec });
    return { identity: (await this.identities.provide(name, instances, spec)).files };
  }

  /** The cell's instances, and how they are spoken to. */
  async reached({ name, blueprint, instances }: CellRecord): Promise<Reached[]> {
    const version = await this.store.blueprint(blueprint.name, blueprint.version);
    const tls = version && (await this.identities?.tlsTo(version.spec, name));
    return instances.map((instance) => (tls ? { ...instance, tls } : instance));
  }

  /** The report, with who the cell and its source show themselves to be at their addresses, and whom they answer. */
  async readBack(cell: CellRecord, { spec }: BlueprintVersion, report: ProtectionReport): Promise<ProtectionReport> {
    const { identity } = spec.security;
    if (!identity || !this.identities) return report;
    const source = cell.sourceCell === null ? undefined : await this.store.cell(cell.sourceCell);
    const [own, theirs] = await Promise.all([this.met(cell), source ? this.met(source) : []]);
    const { minRemainingS } = identity;
    return withIdentity(report, own, theirs, { name: cellName(identity, cell.name), minRemainingS });
  }

  /** Renews what is due, removes what is of no use to anybody, and answers what was renewed or could not be. */
  async renewDue(now = Date.now()): Promise<RenewedIdentities[]> {
    const { identities } = this;
    if (!identities) return [];
    const known = new Map((await this.store.cells()).map((cell) => [cell.name, cell]));
    const rounds = (await identities.cells()).map(async (name): Promise<RenewedIdentities> => {
      try {
        const cell = known.get(name);
        if (!cell) await identities.removeIfOver(name, now);
        const version = cell && (await this.store.blueprint(cell.blueprint.name, cell.blueprint.version));
        return { cell: name, instances: version ? await identities.renewDue(name, version.spec, now) : [] };
      } catch (error) {
        return { cell: name, instances: [], error: error as Error };
      }
    });
    return (await Promise.all(rounds)).filter(({ instances, error }) => instances.length > 0 || error);
  }

  async remove(cell: string): Promise<void> {
    await this.identities?.remove(cell);
  }

  private async met(cell: CellRecord): Promise<IdentityFacts[]> {
    const { name, blueprint, instances } = cell;
    const version = await this.store.blueprint(blueprint.name, blueprint.version);
    const tls = version && (await this.identities?.tlsTo(version.spec, name));
    if (!version || !tls) return [];
    const { path } = version.spec.readiness;
    return Promise.all(
      instances.map(async (instance) => {
        const pem = await this.identities?.certificateOf(name, instance.name);
        const withinMs = (this.identities?.settings.shownWithinS ?? 0) * 1000;
        return readIdentity({ instance, path, tls, ...(pem !== undefined && { expected: { pem, withinMs } }) });
      }),
    );
  }
}
