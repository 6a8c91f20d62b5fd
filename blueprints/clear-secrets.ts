/** Finds secrets that stand in clear in a command or an environment: by the name they go under, and by their look. */

/** What a person calls a secret. */
const secretWords =
  /(^|[_.-])(pass(word|wd|phrase)?|secret|token|api[_-]?key|private[_-]?key|access[_-]?key|secret[_-]?key|credentials?|auth)($|[_.-])|[_.-]pwd$/i;
/** What is about a secret and is none: where it lies, how long it lives, what it is called. */
const aboutSecrets =
  /[_.-](file|path|dir|folder|ttl|expiry|expires|timeout|length|size|count|max|min|limit|name|id|type|kind|mode|header|issuer|audience|enabled|required|url|uri|host|port|s|ms|seconds|minutes|hours|days)$/i;
const secretLooks: readonly [RegExp, string][] = [
  [/^[a-z][a-z0-9+.-]*:\/\/[^\s/:@]*:[^\s/@{][^\s/@]*@/i, 'is an address with a password in it'],
  [/-----BEGIN [A-Z ]*PRIVATE KEY-----/, 'is a private key'],
  [/\bAKIA[0-9A-Z]{16}\b/, 'looks like an access key of AWS'],
  [/\bgh[pousr]_[A-Za-z0-9]{36,}\b/, 'looks like a token of GitHub'],
  [/\bxox[abprs]-[A-Za-z0-9-]{10,}/, 'looks like a token of Slack'],
  [/\b[sr]k_live_[A-Za-z0-9]{16,}/, 'looks like a key of Stripe'],
  [/\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+/, 'looks like a signed token (JWT)'],
];

/** Why the value of this variable is a secret in clear; undefined if it is none. Never quotes the value. */
export function whySecret(name: string, value: string): string | undefined {
  const looks = secretLooks.find(([look]) => look.test(value))?.[1];
  if (looks !== undefined) return looks;
  if (!secretWords.test(name) || aboutSecrets.test(name)) return undefined;
  // Nothing, a switch, or a word to be filled in.
  if (/^(|true|false|yes|no|on|off|0|1|\{[A-Za-z]+(:[a-z0-9-]+)?\})$/i.test(value.trim())) return undefined;
  return `goes under the name of a secret`;
}

export interface ClearArgument {
  /** Index in the argument vector of what holds the secret. */
  index: number;
  /** What it goes under, such as `password`; `argument` where it has no name. */
  name: string;
  why: string;
}

/** Secrets among arguments: `--password=x`, `--token x`, `KEY=x`, or whatever looks like one. */
export function secretArguments(command: readonly string[]): ClearArgument[] {
  return command.flatMap((argument, index) => {
    const [, assigned, value] = /^-{0,2}([A-Za-z][\w.-]*)=(.*)$/s.exec(argument) ?? [];
    if (assigned !== undefined && value !== undefined) {
      const why = whySecret(assigned, value);
      return why === undefined ? [] : [{ index, name: assigned, why }];
    }
    const before = /^--([A-Za-z][\w.-]*)$/.exec(command[index - 1] ?? '')?.[1];
    const isValue = before !== undefined && !argument.startsWith('-');
    const why = whySecret(isValue ? before : '', argument);
    return why === undefined ? [] : [{ index, name: isValue ? before : 'argument', why }];
  });
}

/** The name a reference to it would have: `DB_PASSWORD` becomes `db-password`. */
export function referenceName(name: string): string {
  const plain = name.toLowerCase().replace(/[^a-z0-9]+/g, '-');
  return plain.replace(/^-+|-+$/g, '').slice(0, 63) || 'secret';
}
