/** The providers that the settings name. */
import type { Settings } from '../blueprints/settings';
import { DockerProvider } from './docker-provider';
import { ExecProvider } from './exec-provider';
import { CellIdentities } from './identity/cell-identities';
import { ProcessProvider } from './process-provider';
import type { CellProvider } from './provider';

export function providersOf(
  {
    processProvider,
    dockerProvider,
    execProviders,
    cells,
  }: Pick<Settings, 'processProvider' | 'dockerProvider' | 'execProviders' | 'cells'>,
  identities = identitiesOf({ cells }),
): CellProvider[] {
  const ownTls = identities?.ownTls;
  return [
    new ProcessProvider({ ...processProvider, ownTls }),
    ...(dockerProvider ? [new DockerProvider({ ...dockerProvider, ownTls })] : []),
    ...Object.entries(execProviders).map(([name, options]) => new ExecProvider({ name, ...options, ownTls })),
  ];
}

/** Who gives cells their identities; nobody, where the settings name no issuer. */
export function identitiesOf({ cells }: Pick<Settings, 'cells'>): CellIdentities | undefined {
  return cells.identity && new CellIdentities(cells.identity);
}
