/** Reads the documents of a file and applies them whole; every refusal says file, document, line, path and reason. */
import { readFile } from 'node:fs/promises';
import { LineCounter, parseAllDocuments, isMap, isNode, isScalar, type Document as YamlDocument } from 'yaml';
import type { z } from 'zod';
import { blueprintProblems } from './blueprint-checks';
import { pathText } from './paths';
import { RefusedError, type DocumentChange } from './records';
import { documentKinds, documentSchema, type Document } from './schema';
import type { ConfigurationStore } from './store';

/** Documents, and how to name a place within the text that they came from. */
interface Source {
  documents: Document[];
  placeOf: (document: number, path: readonly PropertyKey[]) => string;
}

/** The documents of a YAML text, complete with defaults. RefusedError with one line for each thing that is wrong. */
export function parseDocuments(text: string, file: string): Document[] {
  return parseSource(text, file).documents;
}

/** Makes the store what the file says: all of it, or nothing (RefusedError). Applied again it changes nothing. */
export async function applyFile(store: ConfigurationStore, file: string): Promise<DocumentChange[]> {
  const text = await readFile(file, 'utf8').catch((error: Error) => {
    throw new RefusedError(`${file}: cannot be read: ${error.message}`);
  });
  const { documents, placeOf } = parseSource(text, file);
  return store.apply(documents, placeOf);
}

function parseSource(text: string, file: string): Source {
  const lines = new LineCounter();
  const parsed = parseAllDocuments(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true });
  // An empty text has no documents; neither have the gaps around separators.
  const numbered = [...parsed].map((tree, index) => ({ tree, index }));
  const isGap = ({ contents }: YamlDocument) => contents === null || (isScalar(contents) && contents.value === null);
  const trees = numbered.filter(({ tree }) => !isGap(tree));
  const problems: string[] = [];
  const documents: Document[] = [];
  const kept: { tree: YamlDocument; index: number }[] = [];

  const place = ({ tree, index }: { tree: YamlDocument; index: number }, path: readonly PropertyKey[]) => {
    const offset = offsetOf(tree, path);
    const line = offset === undefined ? '' : `:${lines.linePos(offset).line}`;
    return `${file}${line}: document ${index + 1}${titleOf(tree)}: ${pathText(path)}`;
  };

  for (const item of numbered)
    for (const error of item.tree.errors)
      problems.push(
        `${file}:${lines.linePos(error.pos[0]).line}: document ${item.index + 1}: not YAML: ${error.message}`,
      );
  for (const item of trees) {
    if (item.tree.errors.length > 0) continue;
    let value: unknown;
    try {
      value = item.tree.toJS();
    } catch (error) {
      problems.push(`${place(item, [])}: ${(error as Error).message}`);
      continue;
    }
    const result = documentSchema.safeParse(value);
    // Also where the shape is wrong already: a person mends all at once.
    const unfit = kindOf(value) === 'Blueprint' ? blueprintProblems(value) : [];
    for (const { path, reason } of unfit) problems.push(`${place(item, path)}: ${reason}`);
    if (result.success) {
      documents.push(result.data);
      kept.push(item);
    } else {
      for (const issue of result.error.issues)
        for (const { path, reason } of reasonsOf(issue)) problems.push(`${place(item, path)}: ${reason}`);
    }
  }
  if (trees.length === 0 && problems.length === 0)
    problems.push(`${file}: holds no documents; expected ${documentKinds.join(', ')}`);
  if (problems.length > 0) throw new RefusedError(problems.join('\n'));
  return { documents, placeOf: (document, path) => place(kept[document]!, path) };
}

/** One sentence per thing to mend: each unknown key on its own, at its own place. */
function reasonsOf(issue: z.core.$ZodIssue): { path: PropertyKey[]; reason: string }[] {
  if (issue.code === 'unrecognized_keys')
    return issue.keys.map((key) => ({ path: [...issue.path, key], reason: 'is not a known key' }));
  if (issue.code === 'invalid_union' && issue.path.length === 1 && issue.path[0] === 'kind')
    return [{ path: issue.path, reason: `must be one of ${documentKinds.join(', ')}` }];
  return [{ path: issue.path, reason: issue.message }];
}

function kindOf(value: unknown): unknown {
  return (value as { kind?: unknown } | null)?.kind;
}

/** ` (Cell shop-a)` as far as the document says so itself. */
function titleOf(tree: YamlDocument): string {
  if (!isMap(tree.contents)) return '';
  const words = ['kind', 'name'].map((key) => tree.get(key)).filter((word) => typeof word === 'string');
  return words.length > 0 ? ` (${words.join(' ')})` : '';
}

/** Where the path begins in the text; where it is not there, where the nearest thing above it begins. */
function offsetOf(tree: YamlDocument, path: readonly PropertyKey[]): number | undefined {
  for (let depth = path.length; depth >= 0; depth -= 1) {
    const key = path[depth - 1];
    const parent: unknown = depth === 0 ? undefined : tree.getIn(path.slice(0, depth - 1), true);
    // The key stands where a person looks for it; its value may begin further down.
    if (isMap(parent)) {
      const pair = parent.items.find(({ key: item }) => isScalar(item) && String(item.value) === String(key));
      if (isNode(pair?.key) && pair.key.range) return pair.key.range[0];
      continue;
    }
    const node: unknown = depth === 0 ? tree.contents : tree.getIn(path.slice(0, depth), true);
    if (isNode(node) && node.range) return node.range[0];
  }
  return undefined;
}
