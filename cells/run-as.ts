/** The user that a process instance runs as: its blueprint's, the machine's for all cells, or one allocated to it alone. */
import { execFile } from 'node:child_process';
import fs from 'node:fs/promises';
import { userInfo } from 'node:os';
import { promisify } from 'node:util';
import { RefusedError } from '../blueprints/records';
import type { BlueprintDocument } from '../blueprints/schema';
import { giveTo, type IdentityFiles } from './identity/identity-files';

/** Each instance has the user number that its port leads to, which no account of the machine should have. */
export const firstAllocatedUid = 700_000;

/** Without rights that could be won back: no capabilities, none to be gained by a setuid program. */
const withoutPrivileges = ['--bounding-set=-all', '--inh-caps=-all', '--no-new-privs'];

/**
 * What stands before the command so that it runs as the user. `allocate`: a number of its own per instance. Gives that
 * user the instance's folder and the files of its identity.
 */
export async function commandAsUser({
  user,
  port,
  home,
  identity,
}: {
  user: string | undefined;
  port: number;
  home: string;
  identity?: IdentityFiles | undefined;
}): Promise<string[]> {
  const give = async (uid: number, gid: number) => {
    await fs.chown(home, uid, gid);
    if (identity) await giveTo(identity, uid, gid);
  };
  if (user === undefined || user === userInfo().username) return [];
  if (user === 'allocate') {
    const id = firstAllocatedUid + port;
    await give(id, id);
    return ['setpriv', `--reuid=${id}`, `--regid=${id}`, '--clear-groups', ...withoutPrivileges, '--'];
  }
  const idOf = async (flag: string) => Number((await promisify(execFile)('id', [flag, user])).stdout);
  try {
    const [uid, gid] = [await idOf('-u'), await idOf('-g')];
    await give(uid, gid);
    return ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--init-groups', ...withoutPrivileges, '--'];
  } catch (error) {
    throw new RefusedError(`security.user: ${user} is not a user of this machine: ${(error as Error).message}`);
  }
}

/** Why this process cannot start another as the user; undefined if it can. */
export function whyNotUser(user: string | undefined): string | undefined {
  const { uid, username } = userInfo();
  if (user === undefined || user === username || uid === 0) return undefined;
  return `only root can start a cell as ${user}, and this process runs as ${username}`;
}

/** What stands before everything else, so that the process has no more rights and files than its blueprint states. */
export function narrowed({ security, resources }: BlueprintDocument): string[] {
  const { openFiles } = resources;
  // Who becomes another user loses them by that; who stays root loses them by having none to win back.
  const dropsAll = security.capabilities?.length === 0 && security.user === undefined && userInfo().uid === 0;
  const rights = [
    ...(dropsAll ? ['--bounding-set=-all', '--inh-caps=-all'] : []),
    ...(security.noNewPrivileges === true ? ['--no-new-privs'] : []),
  ];
  return [
    ...(openFiles === undefined ? [] : ['prlimit', `--nofile=${openFiles}:${openFiles}`, '--']),
    ...(rights.length > 0 ? ['setpriv', ...rights, '--'] : []),
  ];
}
