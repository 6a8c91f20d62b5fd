/**
 * Which TCP sockets the processes of this machine hold, from the kernel's tables. Those have a line for every connection
 * of the machine, a hundred thousand where much is proxied, and a process as many files: all is read in slices, since who
 * looks here has heartbeats to send.
 */
import { closeSync, existsSync, openSync, readdirSync, readlinkSync, readSync } from 'node:fs';
import { groupMembers, isThere } from './processes';
import { parseTcpRow, socketOf, type TcpRow, type TcpSocket } from './protection/proc-files';
import { inSlices } from './slices';

const anyAddress = new Set(['0.0.0.0', '::']);
const listening = '0A';

/** The TCP sockets that the process holds itself. Throws if its files must not be seen, or it is gone. */
export async function socketsOf(pid: number): Promise<TcpSocket[]> {
  const inodes = new Set<string>();
  for await (const inode of socketFilesOf(pid)) inodes.add(inode);
  if (inodes.size === 0) return [];
  return (await rowsOf(String(pid), ({ inode }) => inodes.has(inode))).map(socketOf);
}

/** The process of this machine that accepts connections there; undefined if none can be seen. */
export async function processListeningOn(address: string, port: number): Promise<number | undefined> {
  const rows = await rowsOf('self', isListeningOn(port));
  const there = rows.map(socketOf).filter(({ local }) => local.address === address || anyAddress.has(local.address));
  const inodes = new Set(there.map(({ inode }) => inode));
  if (inodes.size === 0) return undefined;
  for (const pid of readdirSync('/proc').map(Number)) {
    // What ended, or is another user's, holds nothing that could be seen.
    if (!Number.isNaN(pid) && (await holdsOneOf(pid, inodes).catch(() => false))) return pid;
  }
  return undefined;
}

/**
 * Whether the group of this process listens on the TCP port; another server there would answer in its name. Undefined
 * where that cannot be told (no /proc, or the process belongs to another user).
 */
export async function listensOn(leader: number, port: number): Promise<boolean | undefined> {
  if (!existsSync('/proc/self/net/tcp')) return undefined;
  const inodes = new Set((await rowsOf('self', isListeningOn(port))).map(({ inode }) => inode));
  let isHidden = false;
  for (const pid of new Set([leader, ...groupMembers(leader)])) {
    try {
      if (await holdsOneOf(pid, inodes)) return true;
    } catch {
      isHidden = isHidden || isThere(pid);
    }
  }
  return isHidden ? undefined : false;
}

function isListeningOn(port: number): (row: TcpRow) => boolean {
  const end = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  return ({ state, local }) => state === listening && local.endsWith(end);
}

async function holdsOneOf(pid: number, inodes: ReadonlySet<string>): Promise<boolean> {
  for await (const inode of socketFilesOf(pid)) if (inodes.has(inode)) return true;
  return false;
}

/** The inodes of the sockets among its open files. */
async function* socketFilesOf(pid: number): AsyncGenerator<string> {
  const breathe = inSlices();
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    await breathe();
    const inode = /^socket:\[(\d+)\]$/.exec(linkIfThere(`/proc/${pid}/fd/${fd}`))?.[1];
    if (inode !== undefined) yield inode;
  }
}

function linkIfThere(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}

/** Of both tables of the network that the process, a number or `self`, sees. */
async function rowsOf(pid: string, isWanted: (row: TcpRow) => boolean): Promise<TcpRow[]> {
  const rows: TcpRow[] = [];
  for (const table of ['tcp', 'tcp6']) {
    const file = `/proc/${pid}/net/${table}`;
    if (!existsSync(file)) continue;
    for await (const line of linesOf(file)) {
      const row = parseTcpRow(line);
      if (row && isWanted(row)) rows.push(row);
    }
  }
  return rows;
}

async function* linesOf(file: string): AsyncGenerator<string> {
  const breathe = inSlices();
  const buffer = Buffer.alloc(65_536);
  const fd = openSync(file, 'r');
  try {
    let rest = '';
    for (;;) {
      const bytes = readSync(fd, buffer);
      if (bytes === 0) break;
      const lines = (rest + buffer.toString('latin1', 0, bytes)).split('\n');
      rest = lines.pop()!;
      yield* lines;
      await breathe();
    }
    if (rest !== '') yield rest;
  } finally {
    closeSync(fd);
  }
}
