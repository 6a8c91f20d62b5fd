/**
 * Certificates and keys that proxies are given by SDS, from files that settings name. They are held only as the
 * resources they become; nothing here puts their content into a message, a log line or an error.
 */
import { createHash, createPrivateKey } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { Logger } from 'pino';
import type { SecretSettings } from '../../blueprints/control-plane-settings';
import type { Resource } from '../resources/resource';
import { certificatesIn } from './watched-tls';

export interface SecretFilesOptions {
  secrets: readonly SecretSettings[];
  log: Logger;
  /** Told when a file says something new that can be used. */
  onChange: () => void;
  /** How often the files are read, in milliseconds. Default 2,000. */
  everyMs?: number;
}

interface Held {
  fingerprint: string;
  resource: Resource;
}

export class SecretFiles {
  private readonly held = new Map<string, Held>();
  /** Why the files of a secret cannot be used now; what was good before is still given out. */
  readonly problems = new Map<string, string>();
  private readonly timer: NodeJS.Timeout | undefined;

  constructor(private readonly options: SecretFilesOptions) {
    if (options.secrets.length === 0) return;
    this.timer = setInterval(() => {
      void this.look().then((changed) => changed && options.onChange());
    }, options.everyMs ?? 2000);
    this.timer.unref();
  }

  /** The secrets as xDS resources, for their owners alone. The same object as long as its content is the same. */
  resources(): Resource[] {
    return [...this.held.values()].map(({ resource }) => resource);
  }

  /** Reads all files; answers whether a secret is new or different. */
  async look(): Promise<boolean> {
    const changed = await Promise.all(this.options.secrets.map((secret) => this.read(secret)));
    return changed.includes(true);
  }

  close(): void {
    clearInterval(this.timer);
  }

  private async read(secret: SecretSettings): Promise<boolean> {
    const { log } = this.options;
    const { name, owners } = secret;
    try {
      const made = await resourceOf(secret);
      this.problems.delete(name);
      if (this.held.get(name)?.fingerprint === made.fingerprint) return false;
      const isNew = !this.held.has(name);
      this.held.set(name, made);
      log.info({ secret: name, owners }, `secret ${name} is ${isNew ? 'there' : 'renewed'}, for ${owners.join(', ')}`);
      return true;
    } catch (error) {
      const { message } = error as Error;
      if (this.problems.get(name) !== message)
        log.error({ secret: name }, `secret ${name} cannot be read and stays as it was: ${message}`);
      this.problems.set(name, message);
      return false;
    }
  }
}

async function resourceOf({ name, owners, certificateFile, privateKeyFile, caFile }: SecretSettings): Promise<Held> {
  const files = [certificateFile, privateKeyFile, caFile].filter((file) => file !== undefined);
  const contents = new Map<string, Buffer>();
  const hash = createHash('sha256');
  for (const file of files) {
    const content = await readFile(file).catch((error: NodeJS.ErrnoException) => {
      // The error itself is left behind: it is enough to know which file, and why.
      throw new Error(`${file} cannot be read (${error.code})`);
    });
    contents.set(file, content);
    hash.update(`${content.length}:`).update(content);
  }
  const inline = (file: string): object => ({ inline_bytes: contents.get(file)! });
  let message;
  if (caFile !== undefined) {
    certificatesIn(contents.get(caFile)!, caFile);
    message = { name, validation_context: { trusted_ca: inline(caFile) } };
  } else {
    const [leaf] = certificatesIn(contents.get(certificateFile!)!, certificateFile!);
    let key;
    try {
      key = createPrivateKey(contents.get(privateKeyFile!)!);
    } catch {
      throw new Error(`${privateKeyFile} holds no private key in PEM, or one with a passphrase`);
    }
    if (!leaf!.checkPrivateKey(key)) throw new Error(`${privateKeyFile} is not the key of ${certificateFile}`);
    message = {
      name,
      tls_certificate: { certificate_chain: inline(certificateFile!), private_key: inline(privateKeyFile!) },
    };
  }
  return { fingerprint: hash.digest('hex'), resource: { type: 'secret', name, owners, references: [], message } };
}
