/** Makes a provider from plain data, so that a process of its own can have another of the same. */
import type { CellProvider } from '../../cells/provider';

export type RemadeProvider = { kind: 'process'; options: { stateDir: string; graceMs?: number; user?: string } };

/** Loaded late: who counts side effects has to be there first. */
export async function providerOf(remade: RemadeProvider): Promise<CellProvider> {
  const { ProcessProvider } = await import('../../cells/process-provider.js');
  return new ProcessProvider(remade.options);
}
