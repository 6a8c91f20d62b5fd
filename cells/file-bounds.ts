/**
 * Bounds the files of a process instance: it gets a mount namespace of its own, in which all is read-only but what its
 * blueprint lets it write, and what is hidden from it is covered with nothing.
 */
import fs from 'node:fs/promises';
import { userInfo } from 'node:os';
import { RefusedError } from '../blueprints/records';
import type { BlueprintDocument } from '../blueprints/schema';

/*
 * Arguments: what may be written, `--`, what is hidden, `--`, the command. Runs as root in the new namespace, which nobody
 * else sees, and becomes the command: its pid stays. /proc is left out, since programs write to their own part of it.
 * A mount keeps its other options (nosuid, nodev, noexec), which a remount that does not repeat them would take away.
 */
const script = `
fail() { echo "security.files: $*" >&2; exit 125; }
here=$(pwd) writable=
while [ "$1" != -- ]; do
  mount --rbind "$1" "$1" || fail "$1 cannot be mounted"
  writable="$writable$1
"
  shift
done
shift
mounts=$(cat /proc/self/mountinfo)
while read -r _ _ _ _ point options _; do
  point=$(printf %b "$point")
  case "$point/" in /proc/*) continue ;; esac
  case "$options" in rw*) ;; *) continue ;; esac
  while read -r folder; do
    [ -n "$folder" ] || continue
    case "$point/" in "$folder"/*) continue 2 ;; esac
  done <<FOLDERS
$writable
FOLDERS
  mount -o "remount,bind,ro\${options#rw}" "$point" || [ ! -e "$point" ] || fail "$point cannot be made read-only"
done <<MOUNTS
$mounts
MOUNTS
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then mount -t tmpfs -o ro,nosuid,nodev,noexec,size=4k,mode=000 understudy-hidden "$1"
  else mount --bind /dev/null "$1"; fi || fail "$1 cannot be hidden"
  shift
done
shift
cd "$here" || fail "$here, where it is to start, is hidden from it"
exec "$@"
`;

/** What stands before everything else of the command. `home`: its own folder, which it may always write. */
export async function withinFileBounds(
  { name, security: { files } }: BlueprintDocument,
  home: string,
): Promise<string[]> {
  if (!files) return [];
  const real = async (path: string, field: string) =>
    fs.realpath(path).catch(() => {
      throw new RefusedError(`blueprint ${name}: security.files.${field}: there is no ${path} on this machine`);
    });
  const writable = [home, ...files.writable.filter((path) => path !== '{dir}')];
  const [written, hidden] = await Promise.all([
    Promise.all(writable.map((path) => real(path, 'writable'))),
    Promise.all(files.hidden.map((path) => real(path, 'hidden'))),
  ]);
  return [
    ...['unshare', '--mount', '--propagation', 'private', '--', '/bin/sh', '-c', script, 'understudy-files'],
    ...new Set(written),
    '--',
    ...hidden,
    '--',
  ];
}

/** Why the files of a cell cannot be bounded here; undefined if they can, or need not be. */
export function whyNotBounded({ security }: BlueprintDocument, user: string | undefined): string | undefined {
  if (!security.files) return undefined;
  if (process.platform !== 'linux') return 'only Linux can bound the files of a process, by mounts of its own';
  const { uid, username } = userInfo();
  if (uid !== 0) return `only root can bound the files of a process, and this one runs as ${username}`;
  const staysRoot = user === undefined || user === 'root' || user === '0';
  if (staysRoot && security.capabilities?.length !== 0)
    return 'a cell that runs as root could undo that: set security.user, or security.capabilities to none';
  return undefined;
}
