/** Has a command of the user's own sign certificates: the way to Vault, step-ca, cert-manager, SPIRE or a company's authority. */
import { readFile } from 'node:fs/promises';
import pLimit from 'p-limit';
import { RefusedError } from '../../blueprints/records';
import { refusedCode } from '../exec-contract';
import { runCommand } from '../run-command';
import type { CertificateIssuer, CertificateWanted } from './issuer';

export interface CommandIssuerOptions {
  /** Argument vector, no shell. The request comes on standard input, the chain is expected on standard output. */
  command: readonly string[];
  workingDirectory?: string | undefined;
  /** Beside PATH, HOME and what is wanted its whole environment. */
  environment?: Readonly<Record<string, string>>;
  /** Of one call, in seconds. Default 30. */
  timeoutS?: number;
  /** Whom the cells' certificates are to lead to. */
  trustFile: string;
}

/** Certificates made together fall due together: a hundred commands at once would all run into their time limit. */
const atOnce = 4;

export class CommandIssuer implements CertificateIssuer {
  private readonly limit = pLimit(atOnce);

  constructor(private readonly options: CommandIssuerOptions) {}

  issue(wanted: CertificateWanted): Promise<string> {
    return this.limit(() => this.run(wanted));
  }

  private async run({ request, name, lifetimeS }: CertificateWanted): Promise<string> {
    const { command, environment, workingDirectory, timeoutS = 30 } = this.options;
    const run = runCommand({
      command,
      input: request,
      timeoutMs: timeoutS * 1000,
      environment: {
        PATH: process.env['PATH'] ?? '/usr/local/bin:/usr/bin:/bin',
        HOME: process.env['HOME'] ?? '/',
        ...environment,
        CERTIFICATE_NAME_KIND: name.kind,
        CERTIFICATE_NAME: name.value,
        CERTIFICATE_LIFETIME_S: String(lifetimeS),
      },
      workingDirectory,
    });
    // The second word is the script's name where the first is what runs it.
    const who = `the issuer of certificates, ${command.slice(0, 2).join(' ')},`;
    const { code, output, complaint } = await run.catch((error: Error) => {
      throw new Error(`${who} ${error.message}`, { cause: error });
    });
    if (code === refusedCode) throw new RefusedError(`${who} refused: ${complaint || 'without a reason'}`);
    if (code !== 0) throw new Error(`${who} ended with exit code ${code}${complaint ? `: ${complaint}` : ''}`);
    return output;
  }

  trusted(): Promise<string> {
    const { trustFile } = this.options;
    return readFile(trustFile, 'utf8').catch((error: NodeJS.ErrnoException) => {
      throw new Error(`${trustFile} cannot be read (${error.code})`);
    });
  }
}
