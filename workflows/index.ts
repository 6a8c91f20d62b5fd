/** The workflow types a worker hosts: the name of an export is the type's name in Temporal. */
export { predictiveFailover as PredictiveFailover } from './predictive-failover';
export { telemetrySupervision as TelemetrySupervision } from './telemetry-supervision';
export { failureDetection as FailureDetection } from './failure-detection';
export { reconcile as Reconcile } from './reconcile';
export { failoverDrill as FailoverDrill } from './drill';
export { keepPools as KeepPools, fillPool as FillPool } from './pool';
export { lookAfterCells as LookAfterCells } from './look-after-cells';
