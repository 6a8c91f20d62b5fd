/** Reads back what is in force at a synthetic cell and at its source, and says whether it is as protected. */
import { readFileSync } from 'node:fs';
import type { BlueprintDocument } from '../../blueprints/schema';
import type { ObservedInstance } from '../provider';
import { addressesOfHosts, entriesOf, type End } from '../egress';
import { callsBeyond, demandedBy, statedDemands, weakerThanDemanded, weakerThanSource, type Weakness } from './compare';
import { sourceNotes, weakerIdentity, type DemandedIdentity } from './compare-identity';
import type { ProtectionFacts } from './facts';
import type { IdentityFacts } from './identity-facts';
import { processListeningOn } from '../sockets';
import { readProtection, type LookedFor } from './read-process';

export type PlacedInstance = Pick<ObservedInstance, 'name' | 'address' | 'port'> & { pid?: number | undefined };

/** Where something else than this machine's /proc knows what holds a cell: a container engine, a cloud. */
export interface ProtectionReader {
  /** The facts of an instance, or why there are none, in words. */
  read(instance: PlacedInstance, lookedFor?: LookedFor): Promise<ProtectionFacts | string>;
}

export interface ProtectionReport {
  /** Everything in which the synthetic cell is less protected; it is armed only if there is nothing. */
  weaker: Weakness[];
  /** `source`: compared with what is in force there; `blueprint`: with that only; `nothing`: it could not be read. */
  comparedWith: 'source' | 'blueprint' | 'nothing';
  /** What limits the comparison, in sentences. */
  notes: string[];
  /** Who the instances of the synthetic cell showed themselves to be; left out where it has no identity. */
  identity?: IdentityFacts[];
}

/** Instances that run on this machine: by their pid, else by who listens at their address. */
export const thisMachine: ProtectionReader = {
  read: async ({ name, address, port, pid }, lookedFor) => {
    try {
      const found = pid ?? (await processListeningOn(address, port));
      if (found === undefined) return `no process of this machine can be seen that listens on ${address}:${port}`;
      return await readProtection(found, name, lookedFor);
    } catch (error) {
      return (error as Error).message;
    }
  },
};

export interface ReadBack {
  blueprint: BlueprintDocument;
  synthetic: readonly PlacedInstance[];
  source: readonly PlacedInstance[];
  /** Where the cells of the service answer: to call them is no egress. */
  peers?: readonly End[];
  reader?: ProtectionReader;
}

export async function readBackProtection({
  blueprint,
  synthetic,
  source,
  peers = [],
  reader = thisMachine,
}: ReadBack): Promise<ProtectionReport> {
  const lookedFor: LookedFor = {
    hidden: blueprint.security.files?.hidden ?? [],
    secrets: blueprint.security.secrets
      .filter(({ from }) => from.startsWith('file:'))
      .map(({ name, from }) => ({ name, file: from.slice('file:'.length) })),
  };
  const [own, theirs] = await Promise.all([readAll(reader, synthetic, lookedFor), readAll(reader, source, lookedFor)]);
  const demanded = demandedBy(blueprint, uidOfUser);
  if (demanded.egress.length > 0) demanded.egress = [...demanded.egress, ...entriesOf(peers)];
  const notes: string[] = [];
  if (theirs.facts.length < source.length || source.length === 0)
    notes.push(
      `not every instance of the source could be read${theirs.reasons.length > 0 ? ` (${theirs.reasons[0]})` : ''}`,
    );
  const unread = own.reasons.map((reason) => `the synthetic cell could not be read (${reason})`);
  if (own.facts.length < synthetic.length) {
    notes.push(...unread.slice(0, 1));
    const stated = statedDemands(demanded);
    // Known to be protected on the one side, unknown on the other: that is weaker until it is shown.
    if (theirs.facts.length > 0 || stated.length > 0)
      return {
        weaker: [
          {
            instance: synthetic[0]?.name ?? '',
            what: 'unread',
            against: theirs.facts.length > 0 ? 'source' : 'blueprint',
            text: `${unread[0]}, so nothing shows that it is as protected as ${theirs.facts.length > 0 ? 'its source' : `the blueprint demands (${stated.join(', ')})`}`,
          },
        ],
        comparedWith: 'nothing',
        notes,
      };
    return { weaker: [], comparedWith: 'nothing', notes };
  }
  const addresses = await addressesOfHosts(demanded.egress);
  const addressesOf = (host: string) => addresses.get(host) ?? [];
  for (const facts of theirs.facts)
    for (const call of callsBeyond(facts, demanded.egress, addressesOf))
      notes.push(`the source's ${facts.instance} itself is connected to ${call}, which egress does not name`);
  return {
    weaker: [...weakerThanSource(own.facts, theirs.facts), ...weakerThanDemanded(own.facts, demanded, addressesOf)],
    comparedWith: theirs.facts.length > 0 ? 'source' : 'blueprint',
    notes,
  };
}

/** The report, with what was met at the cell's address and at its source's. */
export function withIdentity(
  report: ProtectionReport,
  own: IdentityFacts[],
  source: readonly IdentityFacts[],
  demanded: DemandedIdentity,
): ProtectionReport {
  return {
    ...report,
    weaker: [...report.weaker, ...weakerIdentity(own, source, demanded)],
    notes: [...report.notes, ...sourceNotes(source)],
    identity: own,
  };
}

/** One sentence for the dossier and for people. */
export function protectionText({ weaker, comparedWith }: ProtectionReport): string {
  if (weaker.length > 0) return weaker.map(({ instance, text }) => `${instance} ${text}`).join('; ');
  if (comparedWith === 'nothing') return 'protection not read back';
  return comparedWith === 'source' ? 'as protected as its source' : 'as protected as its blueprint states';
}

async function readAll(reader: ProtectionReader, instances: readonly PlacedInstance[], lookedFor: LookedFor) {
  const read = await Promise.all(instances.map((instance) => reader.read(instance, lookedFor)));
  return {
    facts: read.filter((one): one is ProtectionFacts => typeof one !== 'string'),
    reasons: read.filter((one): one is string => typeof one === 'string'),
  };
}

/** The number of an account of this machine. */
export function uidOfUser(user: string): number | undefined {
  return accounts().find(({ name }) => name === user)?.uid;
}

/** The account of a number. */
export function userOfUid(uid: number): string | undefined {
  return accounts().find((account) => account.uid === uid)?.name;
}

function accounts(): { name: string; uid: number }[] {
  try {
    return readFileSync('/etc/passwd', 'utf8')
      .split('\n')
      .map((line) => line.split(':'))
      .filter((fields) => fields.length > 2)
      .map(([name, , uid]) => ({ name: name!, uid: Number(uid) }));
  } catch {
    return [];
  }
}
