/** Which destinations `network.egress` of a blueprint allows. */
import { lookup } from 'node:dns/promises';
import { BlockList, isIP } from 'node:net';

export interface End {
  address: string;
  port: number;
}

export interface EgressEntry {
  /** A name, an address, or `*`. */
  host: string;
  /** Bits of the address that count; left out: all. */
  prefix?: number;
  /** Null: every port. */
  port: number | null;
}

/** `db.internal:5432`, `10.0.0.0/8:*`, `[::1]:80`, `*:443`; the blueprint was checked for that shape. */
export function parseEgress(entry: string): EgressEntry {
  const at = entry.lastIndexOf(':');
  const [host = '', prefix] = entry.slice(0, at).replace(/[[\]]/g, '').split('/');
  const port = entry.slice(at + 1);
  return {
    host,
    ...(prefix !== undefined && { prefix: Number(prefix) }),
    port: port === '*' ? null : Number(port),
  };
}

/** Entries for these ends: what cells of one service say to one another leaves it not. */
export function entriesOf(ends: readonly End[]): string[] {
  return ends.map(({ address, port }) => (address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`));
}

/** `addressesOf`: the addresses of a host's name now. A name with `*` stands for any: no address shows that it is not. */
export function egressAllows(
  egress: readonly string[],
  addressesOf: (host: string) => readonly string[] = () => [],
): (end: End) => boolean {
  const allowed = egress.map(parseEgress);
  return ({ address, port }) =>
    allowed.some((one) => (one.port === null || one.port === port) && isHost(one, address, addressesOf));
}

function isHost({ host, prefix }: EgressEntry, address: string, addressesOf: (host: string) => readonly string[]) {
  if (host.includes('*') || host === address || addressesOf(host).includes(address)) return true;
  const family = isIP(host);
  if (family === 0 || isIP(address) !== family) return false;
  const kind = family === 4 ? 'ipv4' : 'ipv6';
  const block = new BlockList();
  block.addSubnet(host, prefix ?? (family === 4 ? 32 : 128), kind);
  return block.check(address, kind);
}

/** The addresses of the names in these entries, as the machine's resolver says now. Unknown names have none. */
export async function addressesOfHosts(egress: readonly string[]): Promise<Map<string, string[]>> {
  const hosts = [...new Set(egress.map((entry) => parseEgress(entry).host))];
  const found = await Promise.all(
    hosts.map(async (host): Promise<[string, string[]]> => {
      const answers = host.includes('*') ? [] : await lookup(host, { all: true }).catch(() => []);
      return [host, answers.map(({ address }) => address)];
    }),
  );
  return new Map(found);
}
