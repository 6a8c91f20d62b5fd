/** Writes a blueprint's draft from what was seen of a running process, and says in comments what was not. Pure. */
import { Document, isScalar } from 'yaml';
import { referenceName, secretArguments, whySecret } from '../../blueprints/clear-secrets';
import { hiddenPaths, isWritable, writableFolders } from '../protection/mounts';
import type { CapturedProcess } from './captured';
import { isSessionVariable } from './session-variables';

export interface DraftOf {
  name: string;
  captured: CapturedProcess;
  /** How many such processes make up the cell. Default 1. */
  instances?: number;
  /** Names that stand in the command and change from instance to instance. */
  words?: { service?: string; cell?: string; instance?: string };
  /** The path that answered when it was asked; undefined: none did. */
  readinessPath?: string | undefined;
  /** Where the service is called. Default: of several ports the one whose number it was told. */
  port?: number;
  /** The environment of whoever captures: what both have is more likely the machine's than the service's. */
  surroundings?: NodeJS.ProcessEnv;
}

export interface Draft {
  /** What the schema reads. */
  document: Record<string, unknown>;
  /** Remarks by path. */
  remarks: [path: (string | number)[], text: string][];
  unseen: string[];
}

const mib = 1_048_576;

export function draftBlueprint(of: DraftOf): Draft {
  const { name, captured, instances = 1, words = {}, readinessPath, surroundings = {} } = of;
  const remarks: Draft['remarks'] = [];
  const remark = (path: (string | number)[], text: string) => remarks.push([path, text]);
  const listens = [...captured.protection.listens].sort((a, b) => a.port - b.port);
  const texts = [...captured.command, ...Object.values(captured.environment)];
  // Of several sockets the one whose port it was told is the service's.
  const isTold = ({ port }: { port: number }) => texts.some((text) => mentions(text, port));
  const main = listens.find(({ port }) => port === of.port) ?? listens.find(isTold) ?? listens[0];
  const isOpen = main !== undefined && ['0.0.0.0', '::'].includes(main.address);
  const address = main === undefined || isOpen ? '127.0.0.1' : main.address;

  const fill = (text: string) => withPlaces(text, main, words);
  const secrets: { name: string; from: string }[] = [];
  const secretWord = (from: string) => {
    const reference = referenceName(from);
    if (!secrets.some((secret) => secret.name === reference))
      secrets.push({ name: reference, from: `file:/etc/${name}/secrets/${reference}` });
    return `{secret:${reference}}`;
  };

  const inClear = new Map(secretArguments(captured.command).map((found) => [found.index, found.name]));
  const command = captured.command.map((word, index) => {
    const secret = inClear.get(index);
    if (secret === undefined) return fill(word);
    const assigned = /^(-{0,2}[A-Za-z][\w.-]*=)/.exec(word)?.[1] ?? '';
    remark(['image', 'command', index], 'was a secret in clear; the program is given the path of a file instead');
    return `${assigned}${secretWord(secret)}`;
  });
  const environment: Record<string, string> = {};
  const { own, shared } = apartFrom(surroundings, captured.environment);
  for (const [key, value] of [...own, ...shared]) {
    if (whySecret(key, value) === undefined) {
      environment[key] = fill(value);
      continue;
    }
    environment[`${key}_FILE`] = secretWord(key);
    remark(['image', 'environment', `${key}_FILE`], `was ${key}, a secret in clear; let the program read the file`);
  }
  if (![...command, ...Object.values(environment)].some((text) => text.includes('{port}'))) {
    environment['PORT'] = '{port}';
    remark(['image', 'environment', 'PORT'], 'not seen how it is told its port: make this so that it listens there');
  }

  const { limits, uid, capabilities, noNewPrivileges, mounts } = captured.protection;
  // Where the root is read-only somebody has bounded its files on purpose.
  const isBounded = mounts.length > 0 && !isWritable(mounts, '/');
  if (isBounded) remark(['security', 'files', 'writable', 0], 'as it is mounted now; {dir} is always writable');
  const residentMib = Math.ceil(captured.residentBytes / mib);
  const limitMib = limits.memoryBytes === undefined ? undefined : Math.floor(limits.memoryBytes / mib);
  const memoryLimitMib = Math.max(16, limitMib ?? Math.ceil((2 * residentMib) / 64) * 64);
  remark(
    ['resources', 'memoryLimitMib'],
    limitMib === undefined
      ? `no limit was in force; twice the ${residentMib} MiB that it uses now; give it more if it grows under load`
      : `uses ${residentMib} MiB now`,
  );
  remark(['capacity', 'requestsPerSecond'], 'NOT SEEN: what the whole cell carries within the objective; measure it');
  remark(
    ['readiness', 'path'],
    readinessPath === undefined ? 'not seen: no usual path answered' : 'answered when it was asked',
  );
  if (isOpen) remark(['network', 'address'], 'it listens on all addresses of the machine');
  if (captured.user === undefined) remark(['name'], `runs as user ${uid}, which has no name: set security.user`);
  if (uid === 0) remark(['security', 'user'], 'runs as root: think of a user of its own');

  const document = {
    kind: 'Blueprint',
    name,
    image: {
      command,
      workingDirectory: captured.workingDirectory,
      ...(Object.keys(environment).length > 0 && { environment }),
    },
    ...(captured.dependencies.length > 0 && { dependencies: captured.dependencies }),
    network: { address, ...(captured.calls.length > 0 && { egress: captured.calls.map(endText) }) },
    security: {
      ...(captured.user !== undefined && { user: captured.user }),
      ...(secrets.length > 0 && { secrets }),
      ...(isBounded && { files: { writable: writableFolders(mounts), hidden: hiddenPaths(mounts) } }),
      ...(capabilities.length === 0 && { capabilities: [] }),
      ...(noNewPrivileges && { noNewPrivileges }),
    },
    resources: { instances, memoryLimitMib },
    capacity: { requestsPerSecond: 1 },
    readiness: { path: readinessPath ?? '/healthz' },
  };
  const unseen = unseenOf(captured, listens, main);
  if (shared.length > 0) unseen.push(sharedText(shared.map(([key]) => key)));
  return { document, remarks, unseen };
}

type Variables = [name: string, value: string][];

/** The variables of a process without those of a session; apart from the rest what its surroundings have just so. */
function apartFrom(surroundings: NodeJS.ProcessEnv, environment: Record<string, string>) {
  const all: Variables = Object.entries(environment).filter(([key]) => !isSessionVariable(key));
  const isShared = ([key, value]: Variables[number]) => surroundings[key] === value;
  return { own: all.filter((one) => !isShared(one)), shared: all.filter(isShared) };
}

function sharedText(names: string[]): string {
  const are = names.length === 1 ? 'variable is' : `${names.length} variables are`;
  return `environment: the last ${are} as in the shell of this capture: delete what the service does not need (${names.join(', ')})`;
}

function unseenOf(
  { unseen, calls, coresUsed, protection, dependencies }: CapturedProcess,
  listens: readonly { address: string; port: number }[],
  main: { port: number } | undefined,
): string[] {
  const others = listens.filter(({ port }) => port !== main?.port).map(endText);
  return [
    ...unseen.map((what) => `not readable: ${what}`),
    ...(main ? [] : ['it listens on no TCP port']),
    ...(others.length > 0 ? [`it also listens on ${others.join(', ')}; only one port per instance is given out`] : []),
    `egress: only what was connected at this moment (${calls.length})`,
    `dependencies: ${dependencies.length === 0 ? 'none could be told' : 'the runtime and packages that are named beside the program'}; no libraries of the system, no files read at start`,
    ...(protection.capabilities.length > 0
      ? [
          `it holds ${protection.capabilities.length} capabilities; a cell without security.capabilities may hold what its source holds`,
        ]
      : []),
    `it used ${coresUsed.toFixed(2)} cores on average; resources.cpu is left out`,
    'rules of a firewall, files it may write by their rights, what it needs of other services, how to warm it (warmUp), how its data follow (dataSync)',
  ];
}

function mentions(text: string, port: number): boolean {
  return new RegExp(`(?<!\\d)${port}(?!\\d)`).test(text);
}

/** The text with {port}, {address}, {instance}, ... in the place of what they stand for. */
function withPlaces(
  text: string,
  main: { address: string; port: number } | undefined,
  { service, cell, instance }: NonNullable<DraftOf['words']>,
): string {
  let filled = text;
  if (main && mentions(filled, main.port)) {
    filled = filled.replace(new RegExp(`(?<!\\d)${main.port}(?!\\d)`, 'g'), '{port}');
    filled = filled.replaceAll(`${main.address}:{port}`, '{address}:{port}');
  } else if (main && filled === main.address) filled = '{address}';
  const names: [string | undefined, string][] = [
    [instance, '{instance}'],
    [cell, '{cell}'],
    [service, '{service}'],
  ];
  for (const [value, word] of names)
    if (value !== undefined && (filled === value || filled.endsWith(`=${value}`)))
      filled = filled.slice(0, filled.length - value.length) + word;
  return filled;
}

const endText = ({ address, port }: { address: string; port: number }) =>
  address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;

/** The draft as YAML, its remarks beside the lines they are about. */
export function draftText({ document, remarks, unseen }: Draft): string {
  const tree = new Document(document);
  if (unseen.length > 0)
    tree.commentBefore = [
      ' A draft from what runs now. Read it through, and mend what it says it has not seen:',
      ...unseen.map((text) => ` - ${text}`),
    ].join('\n');
  for (const [path, text] of remarks) {
    const node: unknown = tree.getIn(path, true);
    if (isScalar(node)) node.comment = ` ${text}`;
  }
  return tree.toString({ lineWidth: 0 });
}
