/** Makes a provider from plain data, so that a process of its own can have another of the same. */
import type { DockerProviderOptions } from '../../cells/docker-provider';
import type { ExecProviderOptions } from '../../cells/exec-provider';
import type { ProcessProviderOptions } from '../../cells/process-provider';
import type { CellProvider } from '../../cells/provider';

export type RemadeProvider =
  | { kind: 'process'; options: ProcessProviderOptions }
  | { kind: 'docker'; options: DockerProviderOptions }
  | { kind: 'exec'; options: ExecProviderOptions };

/** Loaded late: who counts side effects has to be there first. */
export async function providerOf({ kind, options }: RemadeProvider): Promise<CellProvider> {
  if (kind === 'docker') return new (await import('../../cells/docker-provider.js')).DockerProvider(options);
  if (kind === 'exec') return new (await import('../../cells/exec-provider.js')).ExecProvider(options);
  return new (await import('../../cells/process-provider.js')).ProcessProvider(options);
}
