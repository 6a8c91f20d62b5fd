/**
 * What a blueprint must not ask for, beyond its shape: secrets in clear, commands that hide others, paths that climb out
 * of their folder, resources that cannot be. Apart from the schema, which also reads what older versions have stored.
 */
import { secretArguments, referenceName, whySecret } from './clear-secrets';
import type { BlueprintDocument } from './schema';

export interface BlueprintProblem {
  path: (string | number)[];
  reason: string;
}

/** As much of a document as could be read; the rest has been refused by the schema already. */
type Raw = Record<string, unknown>;

const object = (value: unknown): Raw =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Raw) : {};
const list = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);
const number = (value: unknown): number | undefined => (typeof value === 'number' ? value : undefined);

/** Every reason against the blueprint, also where its shape is wrong elsewhere: a person mends all at once. */
export function blueprintProblems(document: unknown): BlueprintProblem[] {
  const { image, network, security, resources, warmUp, readiness } = object(document);
  const { command, environment, workingDirectory } = object(image);
  const words = list(command).map((word) => (typeof word === 'string' ? word : ''));
  const variables = Object.entries(object(environment)).filter((entry): entry is [string, string] => {
    return typeof entry[1] === 'string';
  });
  const secrets = list(object(security)['secrets']).map(object);
  return [
    ...injections(words),
    ...clearSecrets(words, variables),
    ...secretReferences(words, variables, secrets),
    ...escapes(words, variables, workingDirectory, secrets),
    ...fileBounds(object(object(security)['files']), workingDirectory, secrets),
    ...requestEscapes(list(warmUp), object(readiness)),
    ...impossible(object(resources), object(network)),
    ...egress(list(object(network)['egress'])),
  ];
}

const shells = /^(?:.*\/)?(sh|bash|dash|ash|zsh|ksh|fish|csh|tcsh|busybox|cmd|cmd\.exe|powershell|pwsh)$/;

/** The command is a list that no shell reads: whatever only a shell understands is a mistake, or an attack. */
function injections(words: readonly string[]): BlueprintProblem[] {
  const problems: BlueprintProblem[] = [];
  const shell = words.findIndex((word) => shells.test(word));
  const handsOver = shell >= 0 && words.slice(shell + 1).some((word) => /^(-[a-z]*c|\/c|-Command)$/i.test(word));
  if (handsOver)
    problems.push({
      path: ['image', 'command', shell],
      reason: `${words[shell]} would run text as a command: name the program and its arguments, or a script in a file`,
    });
  words.forEach((word, index) => {
    const found = /\$\(|\$\{|`|&&|[;|<>\n\r\0]/.exec(word)?.[0];
    if (found !== undefined)
      problems.push({
        path: ['image', 'command', index],
        reason: `holds ${JSON.stringify(found)}, which only a shell understands, and none reads it: one argument per item, code in a file`,
      });
  });
  return problems;
}

function clearSecrets(words: readonly string[], variables: readonly (readonly [string, string])[]): BlueprintProblem[] {
  const remedy = (name: string) =>
    `put it into a file, name that in security.secrets ({ name: ${referenceName(name)}, from: 'file:/...' }) and write {secret:${referenceName(name)}} here, which becomes the file's path`;
  return [
    ...secretArguments(words).map(({ index, name, why }) => ({
      path: ['image', 'command', index],
      reason: `a secret in clear (${why}): ${remedy(name)}`,
    })),
    ...variables.flatMap(([name, value]) => {
      const why = whySecret(name, value);
      return why === undefined
        ? []
        : [{ path: ['image', 'environment', name], reason: `a secret in clear (${why}): ${remedy(name)}` }];
    }),
  ];
}

function secretReferences(
  words: readonly string[],
  variables: readonly (readonly [string, string])[],
  secrets: readonly Raw[],
): BlueprintProblem[] {
  const problems: BlueprintProblem[] = [];
  const names = secrets.map(({ name }) => name);
  names.forEach((name, index) => {
    if (typeof name === 'string' && names.indexOf(name) !== index)
      problems.push({ path: ['security', 'secrets', index, 'name'], reason: `secret ${name} is listed twice` });
  });
  const texts: [(string | number)[], string][] = [
    ...words.map((word, index): [(string | number)[], string] => [['image', 'command', index], word]),
    ...variables.map(([name, value]): [(string | number)[], string] => [['image', 'environment', name], value]),
  ];
  for (const [path, text] of texts)
    for (const [, name] of text.matchAll(/\{secret:([^}]*)\}/g))
      if (!names.includes(name)) problems.push({ path, reason: `there is no secret ${name} in security.secrets` });
  return problems;
}

const climbs = (path: string) => path.split(/[/\\]/).includes('..');

function escapes(
  words: readonly string[],
  variables: readonly (readonly [string, string])[],
  workingDirectory: unknown,
  secrets: readonly Raw[],
): BlueprintProblem[] {
  const reason = (where: string) => `leads out of ${where} by "..": write the path that is meant, from its beginning`;
  const problems: BlueprintProblem[] = [];
  const check = (path: (string | number)[], text: string, where: string) => {
    if (climbs(text.replace(/^-{0,2}[\w.-]+=/, ''))) problems.push({ path, reason: reason(where) });
  };
  const whereOf = (text: string) => (text.includes('{dir}') ? "the instance's folder" : 'its folder');
  words.forEach((word, index) => check(['image', 'command', index], word, whereOf(word)));
  for (const [name, value] of variables) check(['image', 'environment', name], value, whereOf(value));
  if (typeof workingDirectory === 'string') check(['image', 'workingDirectory'], workingDirectory, 'its folder');
  secrets.forEach(({ from }, index) => {
    if (typeof from !== 'string' || !from.startsWith('file:')) return;
    const path = ['security', 'secrets', index, 'from'];
    const file = from.slice('file:'.length);
    if (!file.startsWith('/')) problems.push({ path, reason: 'must be a whole path, such as file:/etc/shop/password' });
    else check(path, file, 'its folder');
  });
  return problems;
}

/** A cell that must not see what it needs would fail without saying why. */
function fileBounds(files: Raw, workingDirectory: unknown, secrets: readonly Raw[]): BlueprintProblem[] {
  const problems: BlueprintProblem[] = [];
  const paths = (field: string) => list(files[field]).map((path) => (typeof path === 'string' ? path : ''));
  const hidden = paths('hidden');
  const within = (path: string) => hidden.find((folder) => path === folder || path.startsWith(`${folder}/`));
  for (const field of ['writable', 'hidden'])
    paths(field).forEach((path, index) => {
      if (climbs(path)) problems.push({ path: ['security', 'files', field, index], reason: 'must not hold ".."' });
    });
  const check = (path: (string | number)[], needed: unknown) => {
    const folder = typeof needed === 'string' ? within(needed) : undefined;
    if (folder !== undefined) problems.push({ path, reason: `lies in ${folder}, which security.files.hidden hides` });
  };
  paths('writable').forEach((path, index) => check(['security', 'files', 'writable', index], path));
  if (hidden.includes('{dir}'))
    problems.push({ path: ['security', 'files', 'hidden'], reason: 'must not hold {dir}, which is always there' });
  check(['image', 'workingDirectory'], workingDirectory);
  secrets.forEach(({ from }, index) => {
    if (typeof from === 'string') check(['security', 'secrets', index, 'from'], from.replace(/^file:/, ''));
  });
  return problems;
}

/** Paths of requests: what a cell is asked must be what the blueprint names, whatever a server makes of dots. */
function requestEscapes(warmUp: readonly unknown[], readiness: Raw): BlueprintProblem[] {
  const problems: BlueprintProblem[] = [];
  const check = (path: (string | number)[], value: unknown) => {
    if (typeof value === 'string' && (climbs(value) || /%2e%2e|\s/i.test(value)))
      problems.push({ path, reason: 'must be a plain path of a request, without ".." and blanks' });
  };
  warmUp.map(object).forEach(({ path, paths, counters }, index) => {
    check(['warmUp', index, 'path'], path);
    check(['warmUp', index, 'counters'], counters);
    list(paths).forEach((each, n) => check(['warmUp', index, 'paths', n], each));
  });
  check(['readiness', 'path'], readiness['path']);
  return problems;
}

/** A control group gives a process at least 1 ms in 100 ms, and at most 2^44 - 1 microseconds of them. */
const leastCpu = 0.01;
const mostCpu = 175_921_860;

function impossible(resources: Raw, network: Raw): BlueprintProblem[] {
  const problems: BlueprintProblem[] = [];
  const add = (path: (string | number)[], reason: string) => problems.push({ path, reason });
  const pairs = [
    ['memoryRequestMib', 'memoryLimitMib', 'MiB'],
    ['cpuRequest', 'cpu', 'cores'],
  ] as const;
  for (const [least, most, unit] of pairs) {
    const [wanted, limit] = [number(resources[least]), number(resources[most])];
    if (wanted !== undefined && limit !== undefined && wanted > limit)
      add(['resources', most], `${limit} ${unit} is less than the ${wanted} that ${least} asks for`);
  }
  const cpu = number(resources['cpu']);
  if (cpu !== undefined && cpu > 0 && (cpu < leastCpu || cpu > mostCpu))
    add(['resources', 'cpu'], `no control group can hold ${cpu} cores: ${leastCpu} to ${mostCpu} can be`);
  const { from, to } = object(network['ports']);
  const [first, last] = [number(from), number(to)];
  const instances = number(resources['instances']) ?? 2;
  if (first !== undefined && last !== undefined && last - first + 1 < instances)
    add(['network', 'ports'], `${first} to ${last} has no room for ${instances} instances`);
  return problems;
}

const hostAndPort = /^(\[[0-9a-fA-F:.]+\]|\*|(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)(\/\d{1,3})?:(\d{1,5}|\*)$/;

function egress(entries: readonly unknown[]): BlueprintProblem[] {
  return entries.flatMap((entry, index) => {
    if (typeof entry !== 'string') return [];
    const port = hostAndPort.exec(entry)?.[5];
    const isRight = port !== undefined && (port === '*' || (Number(port) > 0 && Number(port) < 65_536));
    return isRight
      ? []
      : [{ path: ['network', 'egress', index], reason: 'must be host:port, such as db.internal:5432' }];
  });
}

/** The command and environment with each secret's file in the place of its name. */
export function withSecretFiles({ image, security }: BlueprintDocument): BlueprintDocument['image'] {
  const files = new Map(security.secrets.map(({ name, from }) => [name, from.replace(/^file:/, '')]));
  const fill = (text: string) => text.replace(/\{secret:([^}]*)\}/g, (whole, name: string) => files.get(name) ?? whole);
  return {
    ...image,
    command: image.command.map(fill),
    environment: Object.fromEntries(Object.entries(image.environment).map(([name, value]) => [name, fill(value)])),
  };
}
