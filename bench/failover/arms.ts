/** The arms of the table: what stands between the callers and the cells, by one letter each. */

export const armNames = ['a', 'b', 'c', 'd', 'e', 'f'] as const;
export type ArmName = (typeof armNames)[number];

export const armTitles: Readonly<Record<ArmName, string>> = {
  a: 'reactive Envoy, as usually tuned',
  b: 'reactive Envoy, tuned as well as we can',
  c: 'as (b), a third cell always on',
  d: 'as (b), a third cell created when the failure is seen',
  e: 'Understudy',
  f: 'Understudy with perfect foresight',
};

/** Those whose traffic Understudy's control plane commands. */
export const isUnderstudy = (arm: ArmName): boolean => arm === 'e' || arm === 'f';
