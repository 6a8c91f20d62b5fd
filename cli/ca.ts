/** `understudy ca`: an authority for the certificates of cells, and certificates for what no provider runs. */
import { Command, InvalidArgumentError } from 'commander';
import { mkdirSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loadSettings, type Settings } from '../blueprints/settings';
import { issuerOf, renewFiles } from '../cells/identity/cell-identities';
import { makeAuthority } from '../cells/identity/new-authority';
import { certificatesOf } from '../cells/identity/chain';
import { cellName, nameText, type SubjectName } from '../cells/identity/names';
import { identityFilesIn } from '../cells/identity/identity-files';
import { settingsOption, withStore } from './temporal';

export function caCommand(): Command {
  return new Command('ca')
    .description('Certificates for cells, and for those who call them.')
    .addCommand(initCommand())
    .addCommand(issueCommand());
}

function initCommand(): Command {
  return new Command('init')
    .description('Make an authority for those who have none: ca.crt and ca.key.')
    .requiredOption('--dir <folder>', 'where it is to lie')
    .option('--name <name>', 'what it is called', 'Understudy cells')
    .option('--days <days>', 'how long it lives', wholeNumber, 365)
    .action(async ({ dir, name, days }: { dir: string; name: string; days: number }) => {
      const files = { certificate: join(dir, 'ca.crt'), key: join(dir, 'ca.key') };
      const made = await makeAuthority({ name, days });
      mkdirSync(dir, { recursive: true, mode: 0o700 });
      await writeNew(files.key, made.key, 0o600);
      await writeNew(files.certificate, made.certificate, 0o644);
      console.log(`Authority "${name}", for ${days} days: ${files.certificate}, its key ${files.key}`);
      const issuer = `{ kind: local, certificateFile: ${files.certificate}, privateKeyFile: ${files.key} }`;
      console.log(`Settings: cells: { identity: { issuer: ${issuer} } }`);
    });
}

interface IssueOptions {
  settings: string;
  out: string;
  cell?: string;
  uri?: string;
  dns?: string;
}

function issueCommand(): Command {
  return new Command('issue')
    .description(
      'A certificate by the issuer of the settings, for a cell that no provider runs, or for a proxy. Called again it keeps the key.',
    )
    .addOption(settingsOption())
    .requiredOption('--out <folder>', 'where tls.key, tls.crt and ca.crt are to lie')
    .option('--cell <name>', 'for this cell, by the name that its blueprint gives it')
    .option('--uri <uri>', 'for this URI, such as spiffe://shop.example/envoy/edge-1')
    .option('--dns <name>', 'for this DNS name')
    .action(async (options: IssueOptions) => {
      const settings = loadSettings(options.settings);
      const { identity } = settings.cells;
      if (!identity) throw new Error(`${options.settings} says nothing of cells.identity, so nobody can issue.`);
      const name = await wantedName(options, settings);
      const files = identityFilesIn(options.out);
      mkdirSync(options.out, { recursive: true, mode: 0o700 });
      const chain = await renewFiles(files, name, issuerOf(identity.issuer), identity.lifetimeS);
      console.log(`${nameText(name)} until ${certificatesOf(chain)[0]!.validTo}: ${files.certificateFile}`);
    });
}

async function wantedName({ cell, uri, dns }: IssueOptions, settings: Settings): Promise<SubjectName> {
  if ([cell, uri, dns].filter((one) => one !== undefined).length !== 1)
    throw new Error('For whom? One of --cell, --uri and --dns.');
  if (uri !== undefined) return { kind: 'uri', value: uri };
  if (dns !== undefined) return { kind: 'dns', value: dns };
  return withStore(settings, async (store) => {
    const record = await store.cell(cell!);
    if (!record) throw new Error(`There is no cell ${cell} in the store.`);
    const blueprint = await store.blueprint(record.blueprint.name, record.blueprint.version);
    const identity = blueprint?.spec.security.identity;
    if (!identity)
      throw new Error(`Blueprint ${record.blueprint.name} gives its cells no identity (security.identity).`);
    return cellName(identity, record.name);
  });
}

/** Never over an authority that is there: everything that it has signed would be worth nothing. */
async function writeNew(file: string, text: string, mode: number): Promise<void> {
  await writeFile(file, text, { mode, flag: 'wx' }).catch((error: NodeJS.ErrnoException) => {
    throw error.code === 'EEXIST' ? new Error(`${file} is there already and stays as it is.`) : error;
  });
}

function wholeNumber(text: string): number {
  const days = Number(text);
  if (Number.isInteger(days) && days > 0 && days <= 36_500) return days;
  throw new InvalidArgumentError('expected a number of days.');
}
