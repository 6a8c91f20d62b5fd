/** What its mounts let a process write, and what they hide from it. Pure: /proc/PID/mountinfo in. */

export interface Mount {
  id: number;
  parent: number;
  point: string;
  /** Which part of its file system is mounted there. */
  root: string;
  isReadOnly: boolean;
  /** `ext4`, `tmpfs`, ... */
  kind: string;
  source: string;
}

export function parseMounts(text: string): Mount[] {
  return text.split('\n').flatMap((line): Mount[] => {
    const [front, back] = line.split(' - ');
    const [id, parent, , root, point, options] = (front ?? '').split(' ');
    const [kind, source, ofAll] = (back ?? '').split(' ');
    if (!id || !parent || !root || !point || !options || !kind || !source) return [];
    const isReadOnly = [options, ofAll ?? ''].some((list) => list.split(',').includes('ro'));
    return [
      { id: Number(id), parent: Number(parent), point: plain(point), root: plain(root), isReadOnly, kind, source },
    ];
  });
}

/** Blanks and the like stand as octal numbers. */
const plain = (text: string) =>
  text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));

export const isWithin = (path: string, folder: string): boolean =>
  folder === '/' || path === folder || path.startsWith(`${folder}/`);

/** The mount that the path lies on: of those on its way from the root always the next, and the one on top. */
export function mountOf(mounts: readonly Mount[], path: string): Mount | undefined {
  const known = new Set(mounts.map(({ id }) => id));
  let at = mounts.find(({ point, parent }) => point === '/' && !known.has(parent)) ?? mounts[0];
  // Each step leads to a mount further down; a table that leads in a circle would be the kernel's mistake.
  for (const _ of mounts) {
    const next = mounts
      .filter(({ id, parent, point }) => id !== at?.id && parent === at?.id && isWithin(path, point))
      .sort((a, b) => a.point.length - b.point.length)[0];
    if (!next) return at;
    at = next;
  }
  return at;
}

/** No files of a service's: what may be done there follows from its capabilities. */
const ofTheSystem = (point: string) => ['/proc', '/sys', '/dev'].some((folder) => isWithin(point, folder));
/** A container engine mounts these into every container, for root alone to write. */
const ofTheEngine = new Set(['/etc/hosts', '/etc/hostname', '/etc/resolv.conf', '/run/.containerenv']);

/** Where mounts let it write; who may there, file rights tell. What lies within another of them stands there, too. */
export function writableFolders(mounts: readonly Mount[]): string[] {
  return mounts
    .filter(({ point, isReadOnly }) => !isReadOnly && !ofTheSystem(point) && !ofTheEngine.has(point))
    .filter((mount) => mountOf(mounts, mount.point) === mount)
    .map(({ point }) => point);
}

export function isWritable(mounts: readonly Mount[], path: string): boolean {
  return mountOf(mounts, path)?.isReadOnly === false;
}

/** What mounts keep out of its sight: covered with nothing. */
export function hiddenPaths(mounts: readonly Mount[]): string[] {
  return mounts
    .filter(({ kind, isReadOnly, root }) => (kind === 'tmpfs' && isReadOnly) || root === '/null')
    .filter((mount) => !ofTheSystem(mount.point) && mountOf(mounts, mount.point) === mount)
    .map(({ point }) => point);
}
