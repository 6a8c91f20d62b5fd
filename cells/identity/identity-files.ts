/**
 * The files by which an instance has its identity: a folder of its own with key, certificate and authorities. The key is
 * made once and stays, so that renewing is one rename of the certificate and nobody reads two files that do not fit.
 */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs/promises';
import { dirname, join } from 'node:path';

export interface IdentityFiles {
  certificateFile: string;
  privateKeyFile: string;
  /** Whom the instance is to trust: the authorities of its callers' certificates, too. */
  caFile: string;
}

/** Under these names an instance finds the paths in its environment. */
export const identityVariables = {
  certificateFile: 'CELL_TLS_CERT_FILE',
  privateKeyFile: 'CELL_TLS_KEY_FILE',
  caFile: 'CELL_TLS_CA_FILE',
} as const satisfies Record<keyof IdentityFiles, string>;

export function identityFilesIn(folder: string): IdentityFiles {
  return {
    certificateFile: join(folder, 'tls.crt'),
    privateKeyFile: join(folder, 'tls.key'),
    caFile: join(folder, 'ca.crt'),
  };
}

/** The variables that tell an instance where its files are; none without an identity. */
export function identityEnvironment(files: IdentityFiles | undefined): Record<string, string> {
  if (!files) return {};
  return Object.fromEntries(
    Object.entries(identityVariables).map(([file, variable]) => [variable, files[file as keyof IdentityFiles]]),
  );
}

/** Makes the folder unless it is there. Those above it let others pass, and show them nothing. */
export async function makeFolder(folder: string): Promise<void> {
  await fs.mkdir(dirname(folder), { recursive: true, mode: 0o711 });
  await fs.mkdir(folder, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
}

/** Whoever owns the folder owns the file: it appears whole, with its owner, under its name or not at all. */
export async function writeOwned(file: string, text: string, mode: number, isFirst = false): Promise<void> {
  const draft = `${file}.${process.pid}.${randomBytes(4).toString('hex')}`;
  try {
    await fs.writeFile(draft, text, { mode });
    const { uid, gid } = await fs.stat(dirname(file));
    if (uid !== process.getuid?.()) await fs.chown(draft, uid, gid);
    if (isFirst) await fs.link(draft, file);
    else await fs.rename(draft, file);
  } finally {
    await fs.rm(draft, { force: true });
  }
}

/** Gives folder and files to the user that the instance runs as. */
export async function giveTo(files: IdentityFiles, uid: number, gid: number): Promise<void> {
  for (const file of [files.privateKeyFile, files.certificateFile, files.caFile]) await fs.chown(file, uid, gid);
  await fs.chown(dirname(files.privateKeyFile), uid, gid);
}

export async function readIfThere(file: string): Promise<string | undefined> {
  return fs.readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
}
