/** PredictiveFailover as it is replayed to read a history: after every activation it tells where the dossier stands. Never hosted by a worker. */
import { proxySinks, type Sinks, type WorkflowInterceptors } from '@temporalio/workflow';
import type { Dossier, FailoverInput, FailoverResult } from './messages';
import { predictiveFailover } from './predictive-failover';

export interface DossierSinks extends Sinks {
  dossier: { stands(dossier: Dossier): void };
}

const { dossier: reader } = proxySinks<DossierSinks>();
let dossier: (() => Dossier) | null = null;

export function PredictiveFailover(input: FailoverInput): Promise<FailoverResult> {
  return predictiveFailover(input, (way) => (dossier = way));
}

export const interceptors = (): WorkflowInterceptors => ({
  internals: [
    {
      concludeActivation(input, next) {
        if (dossier) reader.stands(dossier());
        return next(input);
      },
    },
  ],
});
