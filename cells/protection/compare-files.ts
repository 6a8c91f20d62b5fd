/** Whether a synthetic cell can reach more files than its source and its blueprint allow. Pure: facts in, differences out. */
import type { BlueprintDocument } from '../../blueprints/schema';
import type { ProtectionFacts } from './facts';
import { hiddenPaths, isWithin, isWritable, writableFolders } from './mounts';

export interface FileDifference {
  what: string;
  text: string;
}

/** The folder of an instance in a container. */
const ownFolderInContainers = '/run/understudy';

/** Each has folders named after itself or its cell. */
function generic(path: string, instance: string): string {
  const cell = instance.replace(/-\d+$/, '');
  const words: Record<string, string> = { [cell]: '{cell}', [instance]: '{instance}' };
  return path
    .split('/')
    .map((part) => words[part] ?? part)
    .join('/');
}

const isOwnFolder = (path: string, instance: string) =>
  isWithin(path, ownFolderInContainers) || path.split('/').includes(instance);

/** Of folders that lie in each other the outer ones. */
const outer = (paths: readonly string[]) =>
  paths.filter((path) => !paths.some((other) => other !== path && isWithin(path, other)));

export function filesOverSource(own: ProtectionFacts, source: ProtectionFacts): FileDifference[] {
  const differences: FileDifference[] = [];
  const theirs = new Set(writableFolders(source.mounts).map((path) => generic(path, source.instance)));
  const more = writableFolders(own.mounts).filter(
    (path) => !isWritable(source.mounts, path) && !theirs.has(generic(path, own.instance)),
  );
  if (source.mounts.length > 0 && more.length > 0)
    differences.push({
      what: 'writable files',
      text: `has ${outer(more).join(', ')} mounted to be written, its source has not`,
    });
  const hidden = new Set(hiddenPaths(own.mounts));
  const shown = hiddenPaths(source.mounts).filter((path) => !hidden.has(path));
  // Within a root of its own there are other files under these names.
  if (own.mounts.length > 0 && shown.length > 0 && !own.confinedBy.includes('root'))
    differences.push({ what: 'hidden files', text: `can see ${shown.join(', ')}, hidden from its source` });
  for (const secret of own.secretFiles) {
    const mode = source.secretFiles.find(({ name }) => name === secret.name)?.mode;
    if (mode !== undefined && (secret.mode & ~mode & 0o077) !== 0)
      differences.push({
        what: `secret ${secret.name}`,
        text: `has secret ${secret.name} in a file of mode ${octal(secret.mode)}, its source of ${octal(mode)}`,
      });
  }
  return differences;
}

export type DemandedFiles = BlueprintDocument['security']['files'];

export function filesOverDemanded(own: ProtectionFacts, files: DemandedFiles): FileDifference[] {
  const differences: FileDifference[] = [];
  const add = (what: string, text: string) => differences.push({ what, text });
  if (files) {
    const more = writableFolders(own.mounts).filter(
      (path) => !isOwnFolder(path, own.instance) && !files.writable.some((allowed) => isWithin(path, allowed)),
    );
    if (own.mounts.length === 0) add('writable files', 'shows no mounts, the blueprint bounds its files');
    if (more.length > 0)
      add('writable files', `has ${outer(more).join(', ')} mounted to be written, the blueprint does not allow that`);
    if (own.reachable.length > 0) add('hidden files', `can see ${own.reachable.join(', ')}, which the blueprint hides`);
    if (own.capabilities.includes('CAP_SYS_ADMIN'))
      add('bounds of files', 'holds CAP_SYS_ADMIN, with which it can undo the bounds of its files');
  }
  for (const { name, file, mode, uid, gid } of own.secretFiles) {
    const secret = `has secret ${name} (${file})`;
    if ((mode & 0o007) !== 0) add(`secret ${name}`, `${secret} open to every user of the machine (${octal(mode)})`);
    else if (uid !== 0 && uid !== own.uid) add(`secret ${name}`, `${secret} in a file that belongs to user ${uid}`);
    else if ((mode & 0o070) !== 0 && gid !== 0 && gid !== own.gid)
      add(`secret ${name}`, `${secret} open to group ${gid}, which is not its own`);
  }
  return differences;
}

const octal = (mode: number) => `0${(mode & 0o777).toString(8)}`;
