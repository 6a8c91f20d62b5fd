/**
 * Keeps the user of an instance to the destinations that its blueprint names, by rules of the machine's packet filter:
 *
 *   OUTPUT:        -m owner --uid-owner UID -m comment --comment "understudy TAG CELL RUN" -j cell-UID-RUN
 *   cell-UID-RUN:  answers, then what is allowed: RETURN; the rest: REJECT
 *
 * TAG stands for the provider's state folder, so that two on one machine never touch each other's rules; RUN for this life
 * of the cell, so that the end of one does not take away what holds the next.
 */
import { execFile, type ExecFileException } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { isIP } from 'node:net';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { addressesOfHosts, parseEgress } from './egress';
import { runCommand } from './run-command';

const chainOf = (uid: number | string, run: string) => `cell-${uid}-${run}`;

/** One life of a cell. */
export interface CellRun {
  cell: string;
  run: string;
}

/** Others change the filter, too: wait for them that long. */
const waitS = '5';
const timeoutMs = 15_000;

/** By version of IP; the second only where the machine speaks it. */
const families = () =>
  existsSync('/proc/net/if_inet6') ? (['iptables', 'ip6tables'] as const) : (['iptables'] as const);

export class EgressRules {
  private readonly tag: string;

  constructor(stateDir: string) {
    this.tag = createHash('sha256').update(resolve(stateDir)).digest('hex').slice(0, 12);
  }

  /** From now on the user can begin connections to these destinations and no others. Safe to repeat. */
  async hold(of: CellRun, uid: number, egress: readonly string[]): Promise<void> {
    const addresses = await addressesOfHosts(egress);
    for (const tool of families()) {
      const owner = ['-m', 'owner', '--uid-owner', String(uid), '-m', 'comment', '--comment', this.label(of)];
      const chain = chainOf(uid, of.run);
      const jump = [...owner, '-j', chain];
      const isThere = await run(tool, ['-w', waitS, '-C', 'OUTPUT', ...jump]).then(
        () => true,
        () => false,
      );
      const rules = [
        // Answers to those who call the cell, and what goes on: only who begins a connection sends this flag alone.
        '-p tcp ! --syn -j RETURN',
        ...egress.flatMap((entry) => allowed(entry, tool === 'iptables' ? 4 : 6, addresses)),
        '-j REJECT',
      ];
      const lines = [
        '*filter',
        // Makes the chain, or empties it; all of it counts at one moment, or nothing.
        `:${chain} - [0:0]`,
        ...rules.map((rule) => `-A ${chain} ${rule}`),
        ...(isThere ? [] : [`-I OUTPUT ${jump.map((word) => (word.includes(' ') ? `"${word}"` : word)).join(' ')}`]),
        'COMMIT',
        '',
      ];
      const { code, complaint } = await runCommand({
        command: [`${tool}-restore`, '--noflush', '-w', waitS],
        input: lines.join('\n'),
        timeoutMs,
        environment: { PATH: process.env['PATH'] ?? '' },
        workingDirectory: undefined,
      });
      if (code !== 0) throw new Error(`egress of ${of.cell} cannot be held by ${tool}-restore: ${complaint}`);
    }
  }

  /** Takes away all rules of that life of the cell; none is fine. */
  async remove(of: CellRun): Promise<void> {
    for (const tool of families()) {
      const output = await run(tool, ['-w', waitS, '-S', 'OUTPUT']);
      for (const line of output.split('\n')) {
        const uid = /--uid-owner (\d+) /.exec(line)?.[1];
        if (uid === undefined || !line.includes(`"${this.label(of)}"`)) continue;
        const owner = ['-m', 'owner', '--uid-owner', uid, '-m', 'comment', '--comment', this.label(of)];
        const chain = chainOf(uid, of.run);
        await run(tool, ['-w', waitS, '-D', 'OUTPUT', ...owner, '-j', chain]);
        await run(tool, ['-w', waitS, '-F', chain]);
        await run(tool, ['-w', waitS, '-X', chain]);
      }
    }
  }

  private label({ cell, run }: CellRun): string {
    return `understudy ${this.tag} ${cell} ${run}`;
  }
}

function allowed(entry: string, family: 4 | 6, addresses: ReadonlyMap<string, readonly string[]>): string[] {
  const { host, prefix, port } = parseEgress(entry);
  const hosts = host === '*' || isIP(host) > 0 ? [host] : (addresses.get(host) ?? []);
  if (hosts.length === 0) throw new Error(`network.egress: ${host} has no address now, so it cannot be allowed`);
  return hosts
    .filter((each) => each === '*' || isIP(each) === family)
    .flatMap((each) => {
      const to = each === '*' ? '' : `-d ${each}${prefix === undefined ? '' : `/${prefix}`} `;
      if (port === null) return [`${to}-j RETURN`];
      return ['tcp', 'udp'].map((protocol) => `${to}-p ${protocol} --dport ${port} -j RETURN`);
    });
}

/** Why egress cannot be enforced for cells of this user on this machine; undefined if it can. */
export async function whyNotHeld(egress: readonly string[], user: string | undefined): Promise<string | undefined> {
  if (user !== 'allocate')
    return `processProvider.egress: enforce tells cells apart by their users: it needs \`allocate\`, not ${user ?? "Understudy's own"}`;
  const pattern = egress.map((entry) => parseEgress(entry).host).find((host) => /^\*./.test(host));
  if (pattern !== undefined) return `network.egress: ${pattern} cannot be enforced, only names, addresses and *`;
  for (const tool of families()) {
    const reason = await run(tool, ['-w', waitS, '-S', 'OUTPUT']).then(
      () => undefined,
      (error: Error) => error.message.trim().split('\n').at(-1),
    );
    if (reason !== undefined) return `processProvider.egress: enforce needs ${tool}: ${reason}`;
  }
  return undefined;
}

/** More than it waits for others who change the filter. */
const readWithinMs = 8_000;

/** The filter has not answered now; later it may. */
class FilterBusyError extends Error {
  override readonly name = 'FilterBusyError';
}

/**
 * Whether the filter holds the user to what it names, read from the filter. False where there is none, or none that this
 * process may read. Rejects, with a sentence, where it does not answer: that says nothing about who is held.
 */
export async function isHeld(uid: number, withinMs = readWithinMs): Promise<boolean> {
  const held = await Promise.all(families().map((tool) => isHeldBy(tool, uid, withinMs)));
  return held.every(Boolean);
}

async function isHeldBy(tool: string, uid: number, withinMs: number): Promise<boolean> {
  const rulesOf = async (chain: string) => (await run(tool, ['-w', waitS, '-S', chain], withinMs)).trim().split('\n');
  try {
    const chain = (await rulesOf('OUTPUT'))
      .filter((line) => line.includes(`--uid-owner ${uid} `))
      .map((line) => /-j (cell-\S+)\s*$/.exec(line)?.[1])
      .find((name) => name !== undefined);
    return chain !== undefined && / -j REJECT/.test((await rulesOf(chain)).at(-1)!);
  } catch (error) {
    if (error instanceof FilterBusyError) throw error;
    return false;
  }
}

/** What it prints. Rejects where it fails, with FilterBusyError where it hangs or another keeps the filter to itself. */
async function run(tool: string, args: string[], withinMs = timeoutMs): Promise<string> {
  try {
    return (await promisify(execFile)(tool, args, { timeout: withinMs, killSignal: 'SIGKILL' })).stdout;
  } catch (error) {
    const { killed, signal, message } = error as ExecFileException;
    if (killed && signal)
      throw new FilterBusyError(`${tool} has not answered within ${withinMs / 1000} s`, { cause: error });
    if (message.includes('xtables lock'))
      throw new FilterBusyError(`${tool}: another program keeps the packet filter locked`, { cause: error });
    throw error;
  }
}
