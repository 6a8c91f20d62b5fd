/** Command-line flags of the lab's processes: `--name value`, `--name=value` and bare `--name`, checked as they are read. */
import { parseArgs } from 'node:util';

type Kind = 'string' | 'boolean';

/** Parses the flags named in `kinds`; an unknown flag ends the process with one line on stderr. */
export function readFlags<K extends Record<string, Kind>>(
  kinds: K,
  argv = process.argv.slice(2),
): { [N in keyof K]?: K[N] extends 'boolean' ? boolean : string } {
  const options = Object.fromEntries(Object.entries(kinds).map(([name, type]) => [name, { type }]));
  try {
    return parseArgs({ args: argv, options, strict: true }).values as ReturnType<typeof readFlags<K>>;
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\nKnown flags: --${Object.keys(kinds).join(' --')}\n`);
    process.exit(2);
  }
}

/** The flag as a finite number, or the fallback if it was not given. */
export function numberFlag(name: string, text: string | undefined, fallback: number): number {
  if (text === undefined) return fallback;
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) {
    process.stderr.write(`--${name} must be a number, got "${text}".\n`);
    process.exit(2);
  }
  return value;
}
