/** Understands what Linux says of a process in /proc: text in, plain values out. */

/** By bit, from the kernel's capability.h. */
const capabilityNames =
  'CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE'.split(
    ' ',
  );

export interface ProcStatus {
  uid: number;
  gid: number;
  groups: number[];
  capabilities: string[];
  noNewPrivileges: boolean;
  seccomp: 'none' | 'strict' | 'filter';
  residentBytes: number;
}

/** /proc/PID/status. */
export function parseStatus(text: string): ProcStatus {
  const fields = new Map<string, string>();
  for (const line of text.split('\n')) {
    const colon = line.indexOf(':');
    if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1).trim());
  }
  const numbers = (name: string) => (fields.get(name) ?? '').split(/\s+/).filter(Boolean).map(Number);
  const bits = (name: string) => BigInt(`0x${fields.get(name) ?? '0'}`);
  const noNewPrivileges = fields.get('NoNewPrivs') === '1';
  // Root without no_new_privs wins back by exec whatever its bounding set still allows.
  const reach = numbers('Uid')[1] === 0 && !noNewPrivileges ? bits('CapBnd') : 0n;
  const held = bits('CapEff') | bits('CapPrm') | bits('CapAmb') | (numbers('Uid').includes(0) ? reach : 0n);
  const seccomp = fields.get('Seccomp');
  return {
    // The effective id decides what is allowed.
    uid: numbers('Uid')[1] ?? -1,
    gid: numbers('Gid')[1] ?? -1,
    groups: numbers('Groups'),
    capabilities: namesOf(held),
    noNewPrivileges,
    seccomp: seccomp === '2' ? 'filter' : seccomp === '1' ? 'strict' : 'none',
    residentBytes: (numbers('VmRSS')[0] ?? 0) * 1024,
  };
}

function namesOf(bits: bigint): string[] {
  const names: string[] = [];
  for (let bit = 0n; bits >> bit > 0n; bit += 1n)
    if ((bits >> bit) & 1n) names.push(`CAP_${capabilityNames[Number(bit)] ?? Number(bit)}`);
  return names;
}

/** The hard limits in /proc/PID/limits, by the system's own words for them; unlimited ones are left out. */
export function parseLimits(text: string): Map<string, number> {
  const limits = new Map<string, number>();
  for (const line of text.split('\n').slice(1)) {
    const [, name, , hard] = /^(\S.*?)\s{2,}(\S+)\s+(\S+)/.exec(line) ?? [];
    if (name !== undefined && hard !== undefined && hard !== 'unlimited') limits.set(name, Number(hard));
  }
  return limits;
}

/** Arguments or variables, each ended by a NUL. */
export function parseList(text: string): string[] {
  return text.split('\0').slice(0, -1);
}

/** Environment variables; of a name that is there twice the first counts, as for getenv. */
export function parseEnvironment(text: string): Record<string, string> {
  const variables: Record<string, string> = {};
  for (const entry of parseList(text)) {
    const at = entry.indexOf('=');
    const name = entry.slice(0, at);
    if (at > 0 && !(name in variables)) variables[name] = entry.slice(at + 1);
  }
  return variables;
}

export interface TcpSocket {
  local: { address: string; port: number };
  remote: { address: string; port: number };
  state: 'listening' | 'established' | 'other';
  inode: string;
}

/** A line of /proc/PID/net/tcp or tcp6, ends and state in the kernel's own figures. */
export interface TcpRow {
  local: string;
  remote: string;
  state: string;
  inode: string;
}

const tcpRow = /^ *\d+: (\S+) (\S+) (\S\S) \S+ \S+ \S+ +\d+ +\d+ (\d+)/;

/** Undefined for the head of the table. */
export function parseTcpRow(line: string): TcpRow | undefined {
  const [, local, remote, state, inode] = tcpRow.exec(line) ?? [];
  return local && remote && state && inode ? { local, remote, state, inode } : undefined;
}

export function socketOf({ local, remote, state, inode }: TcpRow): TcpSocket {
  const word = state === '0A' ? 'listening' : state === '01' ? 'established' : 'other';
  return { local: endOf(local), remote: endOf(remote), state: word, inode };
}

function endOf(text: string): { address: string; port: number } {
  const [hex = '', port = '0'] = text.split(':');
  // Words of 32 bits, each with its bytes in the machine's own, that is the opposite, order.
  const bytes = (hex.match(/.{8}/g) ?? []).flatMap((word) =>
    (word.match(/../g) ?? []).reverse().map((byte) => parseInt(byte, 16)),
  );
  const isMapped = bytes.length === 16 && bytes.slice(0, 10).every((b) => b === 0) && bytes[10] === 255;
  const short = isMapped ? bytes.slice(12) : bytes;
  const address = short.length === 4 ? short.join('.') : ipv6Text(short);
  return { address, port: parseInt(port, 16) };
}

function ipv6Text(bytes: readonly number[]): string {
  const groups = Array.from({ length: 8 }, (_, i) => ((bytes[2 * i]! << 8) | bytes[2 * i + 1]!).toString(16));
  // The longest run of zeros, once, is written as "::".
  const run = /(?:^|:)0(?::0)+(?=:|$)/.exec(groups.join(':'));
  if (!run) return groups.join(':');
  const text = groups.join(':');
  return `${text.slice(0, run.index)}::${text.slice(run.index + run[0].length).replace(/^:/, '')}`;
}

/** Folders of a process's control groups, by controller; version 2 under the name `unified`. */
export function parseCgroup(text: string): Map<string, string> {
  const groups = new Map<string, string>();
  for (const line of text.split('\n')) {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (controllers === undefined || path === undefined) continue;
    for (const controller of controllers === '' ? ['unified'] : controllers.split(',')) groups.set(controller, path);
  }
  return groups;
}
