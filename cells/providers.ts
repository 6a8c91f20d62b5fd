/** The providers that the settings name. */
import type { Settings } from '../blueprints/settings';
import { DockerProvider } from './docker-provider';
import { ExecProvider } from './exec-provider';
import { ProcessProvider } from './process-provider';
import type { CellProvider } from './provider';

export function providersOf({
  processProvider,
  dockerProvider,
  execProviders,
}: Pick<Settings, 'processProvider' | 'dockerProvider' | 'execProviders'>): CellProvider[] {
  return [
    new ProcessProvider(processProvider),
    ...(dockerProvider ? [new DockerProvider(dockerProvider)] : []),
    ...Object.entries(execProviders).map(([name, options]) => new ExecProvider({ name, ...options })),
  ];
}
