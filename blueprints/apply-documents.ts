/** Makes the store what documents say, within one transaction that the caller opened. */
import { sql, type Transaction } from 'kysely';
import { notify } from './change-feed';
import { crossCheck, type Known } from './cross-checks';
import { differingPaths, pathText } from './paths';
import { RefusedError, type DocumentChange } from './records';
import type { BlueprintDocument, CellDocument, Document, ServiceDocument } from './schema';
import { safeSplit } from './splits';
import { blueprintVersion, cellRecord, jsonb, serviceRecord, type Tables } from './tables';

/** Names a place for people: the document by its index, and the path within it. */
export type PlaceOf = (document: number, path: readonly (string | number)[]) => string;

export function documentPlace(documents: Document[]): PlaceOf {
  return (index, path) =>
    `document ${index + 1} (${documents[index]?.kind} ${documents[index]?.name}): ${pathText(path)}`;
}

/** One apply at a time: the checks hold for what is written. Any number, as long as nothing else uses it. */
const applyLock = 7_306_451;

type Trx = Transaction<Tables>;

/** Throws RefusedError with one line per problem, in which case nothing has been written. */
export async function applyDocuments(trx: Trx, documents: Document[], placeOf: PlaceOf): Promise<DocumentChange[]> {
  await sql`select pg_advisory_xact_lock(${applyLock})`.execute(trx);
  const known = await readKnown(trx);
  const problems = crossCheck(documents, known);
  if (problems.length > 0)
    throw new RefusedError(problems.map((p) => `${placeOf(p.document, p.path)}: ${p.reason}`).join('\n'));

  // In this order each document finds what it refers to; the answer keeps the order of the documents.
  const changes = new Map<Document, DocumentChange>();
  for (const document of documents)
    if (document.kind === 'Blueprint') changes.set(document, await applyBlueprint(trx, document));
  for (const document of documents)
    if (document.kind === 'Service') changes.set(document, await applyService(trx, document));
  for (const document of documents) if (document.kind === 'Cell') changes.set(document, await applyCell(trx, document));

  await notifyOf(trx, documents, changes);
  return documents.map((document) => changes.get(document)!);
}

async function readKnown(trx: Trx): Promise<Known> {
  const services = await trx.selectFrom('services').selectAll().execute();
  const cells = await trx.selectFrom('cells').selectAll().execute();
  const versions = await trx.selectFrom('blueprints').selectAll().orderBy('version', 'desc').execute();
  const used = new Set(cells.map((cell) => `${cell.blueprint_name} ${cell.blueprint_version}`));
  const newest = new Map(versions.toReversed().map((row) => [row.name, row.version]));
  const needed = versions.filter(({ name, version }) => used.has(`${name} ${version}`) || newest.get(name) === version);
  return {
    services: services.map(serviceRecord),
    cells: cells.map(cellRecord),
    blueprints: needed.map(blueprintVersion),
  };
}

/** Changed content becomes a new version: cells keep the one they were made from. */
async function applyBlueprint(trx: Trx, spec: BlueprintDocument): Promise<DocumentChange> {
  const newest = await newestBlueprint(trx, spec.name);
  const change = changeOf('Blueprint', spec, newest?.spec);
  if (change.action !== 'unchanged')
    await trx
      .insertInto('blueprints')
      .values({ name: spec.name, version: (newest?.version ?? 0) + 1, spec: jsonb(spec) })
      .execute();
  return change;
}

async function applyService(trx: Trx, spec: ServiceDocument): Promise<DocumentChange> {
  const before = await trx.selectFrom('services').selectAll().where('name', '=', spec.name).executeTakeFirst();
  const change = changeOf('Service', spec, before && serviceRecord(before).spec);
  if (change.action === 'created')
    await trx
      .insertInto('services')
      .values({ name: spec.name, spec: jsonb(spec) })
      .execute();
  if (change.action === 'changed')
    await trx
      .updateTable('services')
      .set({ spec: jsonb(spec), updated_at: sql<Date>`now()` })
      .where('name', '=', spec.name)
      .execute();
  // A split that is there stays as it is: traffic is moved by changing the split, never by changing a document.
  await trx
    .insertInto('traffic')
    .values({ service: spec.name, epoch: 1, split: jsonb(safeSplit(spec)) })
    .onConflict((oc) => oc.doNothing())
    .execute();
  return change;
}

async function applyCell(trx: Trx, spec: CellDocument): Promise<DocumentChange> {
  const before = await trx.selectFrom('cells').selectAll().where('name', '=', spec.name).forUpdate().executeTakeFirst();
  const { version } = (await newestBlueprint(trx, spec.blueprint))!;
  const change = changeOf('Cell', spec, before?.document ?? undefined);
  const values = {
    role: spec.role,
    zone: spec.zone,
    blueprint_name: spec.blueprint,
    blueprint_version: version,
    document: jsonb(spec),
  };
  if (!before)
    await trx
      .insertInto('cells')
      .values({ ...values, name: spec.name, service: spec.service, state: 'active', instances: jsonb(spec.instances) })
      .execute();
  else {
    if (change.action === 'unchanged' && before.blueprint_version !== version) {
      change.action = 'changed';
      change.paths.push('blueprint');
    }
    // What a provider observed stays as long as the document says nothing else about the instances.
    const instancesChanged = change.paths.some((path) => path.startsWith('instances'));
    await trx
      .updateTable('cells')
      .set({ ...values, ...(instancesChanged && { instances: jsonb(spec.instances) }) })
      .where('name', '=', spec.name)
      .execute();
  }
  return change;
}

async function newestBlueprint(trx: Trx, name: string) {
  const newest = trx.selectFrom('blueprints').selectAll().where('name', '=', name).orderBy('version', 'desc').limit(1);
  const row = await newest.executeTakeFirst();
  return row && blueprintVersion(row);
}

function changeOf(kind: DocumentChange['kind'], after: Document, before: Document | undefined): DocumentChange {
  const { name } = after;
  if (!before) return { kind, name, action: 'created', paths: [] };
  const paths = differingPaths(before, after);
  return { kind, name, action: paths.length > 0 ? 'changed' : 'unchanged', paths };
}

async function notifyOf(trx: Trx, documents: Document[], changes: Map<Document, DocumentChange>): Promise<void> {
  const services = new Set<string | null>();
  for (const document of documents) {
    if (changes.get(document)?.action === 'unchanged') continue;
    // A blueprint belongs to no one service.
    if (document.kind === 'Blueprint') services.add(null);
    else services.add(document.kind === 'Cell' ? document.service : document.name);
  }
  for (const service of services) await notify(trx, service);
}
