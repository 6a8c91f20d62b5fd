/** What is really in force around one instance: read from the system, never from what was asked of it. */
import type { End } from '../egress';
import type { Mount } from './mounts';

/** Limits by which a process is held. Bytes, cores or counts. */
export const limitNames = [
  'memoryBytes',
  'cpus',
  'processes',
  'openFiles',
  'coreBytes',
  'lockedBytes',
  'realtimePriority',
] as const;
export type LimitName = (typeof limitNames)[number];

export const limitWords: Record<LimitName, string> = {
  memoryBytes: 'memory',
  cpus: 'processor cores',
  processes: 'processes',
  openFiles: 'open files',
  coreBytes: 'size of core dumps',
  lockedBytes: 'locked memory',
  realtimePriority: 'real-time priority',
};

/** A file that holds a secret, as the instance finds it. */
export interface SecretFile {
  name: string;
  file: string;
  /** Its rights, such as 0o600. */
  mode: number;
  uid: number;
  gid: number;
}

export interface ProtectionFacts {
  instance: string;
  uid: number;
  gid: number;
  /** Supplementary groups. */
  groups: number[];
  /** Every capability that it holds, could take up, or hands on. Its bounding set counts only without no_new_privs. */
  capabilities: string[];
  noNewPrivileges: boolean;
  seccomp: 'none' | 'strict' | 'filter';
  /** What is left out is not limited. */
  limits: Partial<Record<LimitName, number>>;
  /** Namespaces that are not the reader's own: `mnt`, `net`, `pid`, `user`, `ipc`; `root` for a root folder of its own. */
  confinedBy: string[];
  /** Sockets that accept connections. */
  listens: { address: string; port: number }[];
  /** What holds a secret in clear, by name only: `argument password`, `environment DB_PASSWORD`. */
  clearSecrets: string[];
  /** Everything that is mounted where it runs. */
  mounts: Mount[];
  /** Of what is to be hidden from it, what it would find there. */
  reachable: string[];
  secretFiles: SecretFile[];
  /** Open connections that it began itself. */
  calls: End[];
  /** Whether the machine's packet filter keeps its user to what its blueprint lets it call. */
  isEgressHeld: boolean;
  /** What could not be read, in words. What stands above for it says nothing. */
  unseen: string[];
}
