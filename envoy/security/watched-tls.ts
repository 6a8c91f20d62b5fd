/**
 * A certificate, its key and the authorities it trusts, as their files say them now. The files are read again and again;
 * what is new is taken only when it is whole and fits together, else what was good before stays.
 */
import { createHash, createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { Logger } from 'pino';
import type { TlsSettings } from '../../blueprints/control-plane-settings';

export interface TlsMaterial {
  certificate: Buffer;
  privateKey: Buffer;
  ca: Buffer;
  /** End of the certificate's life, Unix milliseconds. */
  expiresAt: number;
  /** Hash of all three, to tell one material from another. */
  fingerprint: string;
}

export interface WatchOptions {
  /** Names the place in messages: `xDS`, `traffic API`. */
  what: string;
  log: Logger;
  /** How often the files are read, in milliseconds. Default 2,000. */
  everyMs?: number;
}

export class WatchedTls {
  private material: TlsMaterial;
  private readonly listeners = new Set<(material: TlsMaterial) => void>();
  private readonly timer: NodeJS.Timeout;
  /** What was read last and could not be used, and how often in a row. */
  private refused: { fingerprint: string; times: number } | undefined;
  private isReading = false;
  /** Why the files as they are now are not used; undefined if they are. */
  problem: string | undefined;

  /** Throws an Error that names the file if what is there now cannot be used. */
  constructor(
    private readonly files: TlsSettings,
    private readonly options: WatchOptions,
  ) {
    this.material = judge(
      files,
      pathsOf(files).map((file) => readNow(file)),
    );
    this.timer = setInterval(() => void this.look(), options.everyMs ?? 2000);
    this.timer.unref();
  }

  get current(): TlsMaterial {
    return this.material;
  }

  /** Calls the listener with every later material. Answers how to stop. */
  onChange(listener: (material: TlsMaterial) => void): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }

  close(): void {
    clearInterval(this.timer);
    this.listeners.clear();
  }

  /** Reads the files now. Resolves when what they say is in use, or refused. */
  async look(): Promise<void> {
    if (this.isReading) return;
    this.isReading = true;
    const contents = await Promise.all(
      pathsOf(this.files).map((file) => readFile(file).catch((error: NodeJS.ErrnoException) => error)),
    );
    this.isReading = false;
    const fingerprint = fingerprintOf(contents);
    if (fingerprint === this.material.fingerprint) {
      this.problem = undefined;
      this.refused = undefined;
      return;
    }
    let material: TlsMaterial;
    try {
      material = judge(this.files, contents);
    } catch (error) {
      this.refuse(fingerprint, (error as Error).message);
      return;
    }
    this.take(material);
  }

  private take(material: TlsMaterial): void {
    const { log, what } = this.options;
    this.material = material;
    this.problem = undefined;
    this.refused = undefined;
    const until = new Date(material.expiresAt).toISOString();
    log.info(
      { what, until, files: this.files },
      `${what}: new connections use the certificate of ${this.files.certificateFile} as it is now, valid until ${until}`,
    );
    for (const listener of [...this.listeners]) listener(material);
  }

  /** Files that are replaced one after the other do not fit for a moment: what does not last is not worth a word. */
  private refuse(fingerprint: string, reason: string): void {
    const times = this.refused?.fingerprint === fingerprint ? this.refused.times + 1 : 1;
    this.refused = { fingerprint, times };
    this.problem = reason;
    if (times !== 2) return;
    const { log, what } = this.options;
    log.error({ what, reason }, `${what}: the certificate in use stays, since the files cannot be used: ${reason}`);
  }
}

function pathsOf(files: TlsSettings): [certificate: string, key: string, ca: string] {
  return [files.certificateFile, files.privateKeyFile, files.caFile];
}

function readNow(file: string): Buffer | NodeJS.ErrnoException {
  try {
    return readFileSync(file);
  } catch (error) {
    return error as NodeJS.ErrnoException;
  }
}

function fingerprintOf(contents: (Buffer | NodeJS.ErrnoException)[]): string {
  const hash = createHash('sha256');
  for (const content of contents) {
    const bytes = content instanceof Error ? Buffer.from(content.code ?? content.message) : content;
    hash.update(`${bytes.length}:`).update(bytes);
  }
  return hash.digest('hex');
}

/** The material if it is whole: every file readable, the key the certificate's, nothing expired. Never quotes a file. */
function judge(files: TlsSettings, contents: (Buffer | NodeJS.ErrnoException)[]): TlsMaterial {
  const [certificate, privateKey, ca] = contents.map((content, i) => {
    if (content instanceof Error)
      throw new Error(`${pathsOf(files)[i]} cannot be read (${content.code}); put the PEM file there`);
    return content;
  }) as [Buffer, Buffer, Buffer];
  const [leaf] = certificatesIn(certificate, files.certificateFile);
  certificatesIn(ca, files.caFile);
  let key;
  try {
    key = createPrivateKey(privateKey);
  } catch {
    throw new Error(`${files.privateKeyFile} holds no private key in PEM, or one with a passphrase`);
  }
  if (!leaf!.checkPrivateKey(key)) {
    throw new Error(`${files.privateKeyFile} is not the key of the certificate in ${files.certificateFile}`);
  }
  const expiresAt = Date.parse(leaf!.validTo);
  if (expiresAt < Date.now()) throw new Error(`${files.certificateFile} expired on ${leaf!.validTo}; renew it`);
  return { certificate, privateKey, ca, expiresAt, fingerprint: fingerprintOf(contents) };
}

/** All certificates of a PEM file, of which there is at least one and no half of one. */
export function certificatesIn(pem: Buffer, file: string): X509Certificate[] {
  const text = pem.toString('latin1');
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  const begun = text.match(/-----BEGIN CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0 || blocks.length !== begun.length) {
    throw new Error(`${file} holds no whole PEM certificate; it may still be being written`);
  }
  return blocks.map((block, i) => {
    try {
      return new X509Certificate(block);
    } catch (error) {
      throw new Error(`${file}: certificate ${i + 1} cannot be read: ${(error as Error).message}`, { cause: error });
    }
  });
}
