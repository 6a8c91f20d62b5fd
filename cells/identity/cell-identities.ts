/** Gives cells their identities and renews them, and our own calls to cells theirs. */
import fs from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { IdentitySettings } from '../../blueprints/identity-settings';
import { RefusedError } from '../../blueprints/records';
import type { BlueprintDocument } from '../../blueprints/schema';
import type { OwnTls } from '../provider';
import type { CertificateIssuer } from './issuer';
import { identityFilesIn, makeFolder, readIfThere, writeOwned, type IdentityFiles } from './identity-files';
import { CommandIssuer } from './command-issuer';
import { LocalIssuer } from './local-issuer';
import { cellName, type SubjectName } from './names';
import { isDue, isOver, obtainCertificate, whyNotUsable, type Obtained } from './obtain';
import type { TargetTls } from './target-tls';
import { keyPem, newKeys } from './x509';

/** How to speak to a cell made from the blueprint, and to nobody else; undefined for one without an identity. */
export type TlsTo = (blueprint: BlueprintDocument, cell: string) => Promise<TargetTls | undefined>;

export function issuerOf(settings: IdentitySettings['issuer']): CertificateIssuer {
  return settings.kind === 'local' ? new LocalIssuer(settings) : new CommandIssuer(settings);
}

export interface ProvidedIdentity {
  /** By instance. */
  files: Record<string, IdentityFiles>;
  /** Instances whose certificate is new. */
  issued: string[];
}

export class CellIdentities {
  private readonly folder: string;
  private own: Promise<Obtained & { key: string }> | undefined;

  constructor(
    readonly settings: IdentitySettings,
    private readonly issuer: CertificateIssuer = issuerOf(settings.issuer),
  ) {
    this.folder = resolve(settings.folder);
  }

  /** Each instance of the cell has its files, and at least half of its certificate's life before it. Safe to repeat. */
  async provide(
    cell: string,
    instances: readonly string[],
    blueprint: BlueprintDocument,
    now = Date.now(),
  ): Promise<ProvidedIdentity> {
    const { identity } = blueprint.security;
    if (!identity) return { files: {}, issued: [] };
    const { lifetimeS } = this.settings;
    if (lifetimeS / 2 < identity.minRemainingS)
      throw new RefusedError(
        `blueprint ${blueprint.name}: security.identity.minRemainingS: ${identity.minRemainingS} s cannot be kept by certificates of ${lifetimeS} s that are renewed at half of it (cells.identity.lifetimeS)`,
      );
    const provided: ProvidedIdentity = { files: {}, issued: [] };
    for (const instance of instances) {
      const files = this.filesOf(cell, instance);
      if (await this.renew(files, cellName(identity, cell), now)) provided.issued.push(instance);
      provided.files[instance] = files;
    }
    return provided;
  }

  /** Renews what is due of a cell whose files are on this machine. Answers the instances whose certificate is new. */
  async renewDue(cell: string, blueprint: BlueprintDocument, now = Date.now()): Promise<string[]> {
    return (await this.provide(cell, await this.instancesOf(cell), blueprint, now)).issued;
  }

  /** Removes the files of a cell that nobody knows, once none of its certificates holds any more. */
  async removeIfOver(cell: string, now = Date.now()): Promise<void> {
    const held = await Promise.all(
      (await this.instancesOf(cell)).map((instance) => this.certificateOf(cell, instance)),
    );
    if (held.every((chain) => chain !== undefined && isOver(chain, now))) await this.remove(cell);
  }

  /** Cells that have files on this machine. */
  async cells(): Promise<string[]> {
    return listIfThere(this.folder);
  }

  async remove(cell: string): Promise<void> {
    await fs.rm(join(this.folder, plain(cell)), { recursive: true, force: true });
  }

  /** The certificate that the instance is to show now, PEM; undefined where it is not from here. */
  async certificateOf(cell: string, instance: string): Promise<string | undefined> {
    return readIfThere(this.filesOf(cell, instance).certificateFile);
  }

  filesOf(cell: string, instance: string): IdentityFiles {
    return identityFilesIn(join(this.folder, plain(cell), plain(instance)));
  }

  readonly tlsTo: TlsTo = async ({ security: { identity } }, cell) =>
    identity && { ...(await this.ownTls()), name: cellName(identity, cell) };

  /** For whoever answers. */
  readonly ownTls: OwnTls = async () => {
    const { chain, key, trusted } = await this.ownCertificate();
    return { ca: trusted, certificate: chain, key };
  };

  /** What we show of ourselves: kept in memory, made anew at half of its life. */
  private async ownCertificate(): Promise<Obtained & { key: string }> {
    const { lifetimeS, client } = this.settings;
    const held = await this.own?.catch(() => undefined);
    if (held && !isDue(held.chain, lifetimeS)) return held;
    const made = (async () => {
      const key = await keyPem((await newKeys()).privateKey);
      return { key, ...(await obtainCertificate(this.issuer, key, { name: client, lifetimeS })) };
    })();
    this.own = made;
    try {
      return await made;
    } catch (error) {
      // Told to who asked now, and forgotten: the next one asks anew. What still holds is good until then.
      if (this.own === made) this.own = held && Promise.resolve(held);
      if (held && !isOver(held.chain)) return held;
      throw error;
    }
  }

  /** True if the certificate is new. */
  private async renew(files: IdentityFiles, name: SubjectName, now: number): Promise<boolean> {
    const { lifetimeS } = this.settings;
    await makeFolder(dirname(files.privateKeyFile));
    const key = await keyIn(files.privateKeyFile);
    const [chain, trusted] = [await readIfThere(files.certificateFile), await this.issuer.trusted()];
    await keepTrusted(files, trusted);
    const isGood =
      chain !== undefined &&
      !isDue(chain, lifetimeS, now) &&
      whyNotUsable({ chain, trusted, key, name, lifetimeS }, now) === undefined;
    if (isGood) return false;
    await renewFiles(files, name, this.issuer, lifetimeS);
    return true;
  }

  private async instancesOf(cell: string): Promise<string[]> {
    return listIfThere(join(this.folder, plain(cell)));
  }
}

/** A new certificate for the key in the files, which is made if there is none. Answers the chain, PEM. */
export async function renewFiles(
  files: IdentityFiles,
  name: SubjectName,
  issuer: CertificateIssuer,
  lifetimeS: number,
): Promise<string> {
  const { chain, trusted } = await obtainCertificate(issuer, await keyIn(files.privateKeyFile), { name, lifetimeS });
  await keepTrusted(files, trusted);
  await writeOwned(files.certificateFile, chain, 0o640);
  return chain;
}

async function keepTrusted({ caFile }: IdentityFiles, trusted: string): Promise<void> {
  if ((await readIfThere(caFile)) !== trusted) await writeOwned(caFile, trusted, 0o640);
}

/** The key in the file; made if there is none. Of two that make one at once, the first counts. */
async function keyIn(file: string): Promise<string> {
  const there = await readIfThere(file);
  if (there !== undefined) return there;
  const made = await keyPem((await newKeys()).privateKey);
  await writeOwned(file, made, 0o600, true).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
  return fs.readFile(file, 'utf8');
}

function plain(name: string): string {
  if (!/^[a-z0-9][a-z0-9.-]*$/i.test(name)) throw new Error(`"${name}" cannot be the name of a folder`);
  return name;
}

async function listIfThere(folder: string): Promise<string[]> {
  const entries = await fs.readdir(folder, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
}
