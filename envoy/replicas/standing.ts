/** How the proxies of all replicas stand towards an epoch of a service's split, put together from what each replica knows. Pure. */
import type { ProxyRefusal } from '../../blueprints/records';
import type { ReplicaHolding } from '../../blueprints/replicas';

/** What became of the present resources at the proxies connected to one replica, by node id. */
export interface Standing {
  acknowledged: string[];
  refused: ProxyRefusal[];
  pending: string[];
}

export interface FleetStanding extends Standing {
  /** Were connected somewhere when the wait began, and are not, anywhere. */
  gone: string[];
  /** Have answered, at another replica than where they were when the wait began. */
  moved: string[];
}

/** Another replica, as Postgres knows it. */
export interface OtherReplica {
  id: string;
  /** Since its last sign of life. */
  silentMs: number;
  /** It has shown no sign of life for so long that nobody waits for it. */
  lost: boolean;
  proxies: string[];
  holding: Pick<ReplicaHolding, 'epoch' | keyof Standing> | undefined;
}

export interface Whereabouts {
  /** Replica by node id, when the wait began. */
  at: ReadonlyMap<string, string>;
}

export const emptyStanding: Standing = { acknowledged: [], refused: [], pending: [] };

/** Where each proxy is now. A replica that was lost before leaves no trace: its proxies are not missed for ever. */
export function whereabouts(own: string, local: Standing, others: OtherReplica[]): Whereabouts {
  const at = new Map<string, string>();
  for (const other of others) {
    if (!other.lost) for (const node of nodesOf(other)) at.set(node, other.id);
  }
  for (const node of nodesIn(local)) at.set(node, own);
  return { at };
}

/** @param local at the replica `own`, which has published the epoch. */
export function fleetStanding(
  epoch: number,
  own: string,
  local: Standing,
  others: OtherReplica[],
  { at }: Whereabouts,
): FleetStanding {
  const told = others.filter((o) => !o.lost && o.holding && o.holding.epoch >= epoch);
  const refused = [local, ...told.map((o) => o.holding!)].flatMap((standing) => standing.refused);
  const refusing = new Set(refused.map(({ node }) => node));
  const pending = new Set<string>();
  const answeredAt = new Map<string, string>(refused.map(({ node }) => [node, own]));
  for (const [id, standing] of [[own, local] as const, ...told.map((o) => [o.id, o.holding!] as const)]) {
    for (const node of standing.pending) pending.add(node);
    for (const { node } of standing.refused) answeredAt.set(node, id);
    for (const node of standing.acknowledged) answeredAt.set(node, id);
  }
  // A replica that has said nothing of this epoch: its proxies are pending unless they have answered elsewhere.
  for (const other of others) {
    if (other.lost || told.includes(other)) continue;
    const nodes = nodesOf(other);
    for (const node of nodes) if (!answeredAt.has(node)) pending.add(node);
    // Who is connected to it is not known: the replica itself is what is waited for.
    if (nodes.length === 0) pending.add(replicaName(other.id));
  }
  for (const node of refusing) pending.delete(node);
  const acknowledged = [...answeredAt.keys()].filter((node) => !refusing.has(node) && !pending.has(node)).sort();
  const gone = [...at.keys()].filter((node) => !answeredAt.has(node) && !pending.has(node)).sort();
  const moved = [...answeredAt].filter(([node, id]) => at.has(node) && at.get(node) !== id).map(([node]) => node);
  return { acknowledged, refused, pending: [...pending].sort(), gone, moved: moved.sort() };
}

/** How a replica stands in a list of proxies while nobody knows who is connected to it. */
export function replicaName(id: string): string {
  return `(replica ${id})`;
}

/** Who is or was connected to it. */
export function nodesOf({ proxies, holding }: OtherReplica): string[] {
  return [...new Set([...proxies, ...(holding ? nodesIn(holding) : [])])];
}

function nodesIn({ acknowledged, refused, pending }: Standing): string[] {
  return [...acknowledged, ...refused.map(({ node }) => node), ...pending];
}
