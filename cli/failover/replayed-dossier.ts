/** The dossier out of a history alone: the workflow is replayed here, with no worker and no effect on anything. */
import { join } from 'node:path';
import type { History } from '@temporalio/common/lib/proto-utils';
import type { InjectedSinks } from '@temporalio/worker';
import { packageRoot } from '../../package-root';
import type { Dossier } from '../../workflows/messages';
import type { DossierSinks } from '../../workflows/replay-dossier';

/** Throws if the history is not one of this version's `PredictiveFailover`. */
export async function replayedDossier(history: History, failover: string): Promise<Dossier> {
  // Heavy, and needed for this alone.
  const { DefaultLogger, Runtime, Worker, bundleWorkflowCode } = await import('@temporalio/worker');
  try {
    Runtime.install({ logger: new DefaultLogger('ERROR'), shutdownSignals: [] });
  } catch {
    // Installed already.
  }
  const workflowsPath = join(packageRoot, 'dist', 'workflows', 'replay-dossier.js');
  const workflowBundle = await bundleWorkflowCode({
    workflowsPath,
    workflowInterceptorModules: [workflowsPath],
    logger: new DefaultLogger('ERROR'),
  });
  let latest: Dossier | null = null;
  const sinks: InjectedSinks<DossierSinks> = {
    dossier: { stands: { fn: (_, dossier) => void (latest = dossier), callDuringReplay: true } },
  };
  await Worker.runReplayHistory({ workflowBundle, sinks }, history, failover);
  if (latest === null) throw new Error(`the history of ${failover} has no beginning yet: no worker has begun it`);
  return latest;
}
