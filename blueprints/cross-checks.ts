/** Whether documents fit together and to what the store already holds, decided without a database. */
import { blueprintProblems } from './blueprint-checks';
import type { BlueprintVersion, CellRecord, ServiceRecord } from './records';
import type { BlueprintDocument, CellDocument, Document, ServiceDocument } from './schema';

/** Something that cannot be accepted: where (index of the document, path within it) and why. */
export interface Problem {
  document: number;
  path: (string | number)[];
  reason: string;
}

/** What the store holds before the documents are applied. */
export interface Known {
  services: ServiceRecord[];
  cells: CellRecord[];
  /** The newest version of each, and those that cells were made from. */
  blueprints: BlueprintVersion[];
}

interface Placed<T> {
  document: number;
  spec: T;
}

/** Every reason against applying these documents together; none if they can be applied. */
export function crossCheck(documents: Document[], known: Known): Problem[] {
  const services: Placed<ServiceDocument>[] = [];
  const cells: Placed<CellDocument>[] = [];
  const blueprints: Placed<BlueprintDocument>[] = [];
  const problems: Problem[] = [];
  const first = new Map<string, number>();
  documents.forEach((spec, document) => {
    const key = `${spec.kind} ${spec.name}`;
    const earlier = first.get(key);
    if (earlier !== undefined)
      problems.push({ document, path: ['name'], reason: `${key} is already document ${earlier + 1}` });
    else first.set(key, document);
    if (spec.kind === 'Service') services.push({ document, spec });
    else if (spec.kind === 'Cell') cells.push({ document, spec });
    else blueprints.push({ document, spec });
  });

  // What will be there once the documents are applied: by name, the document's word over the store's.
  const serviceOf = new Map(known.cells.map((cell) => [cell.name, cell.service]));
  for (const { spec } of cells) serviceOf.set(spec.name, spec.service);
  const serviceNames = new Set([...known.services.map(({ name }) => name), ...services.map(({ spec }) => spec.name)]);
  const blueprintNames = new Set([
    ...known.blueprints.map(({ name }) => name),
    ...blueprints.map(({ spec }) => spec.name),
  ]);

  for (const service of services) problems.push(...checkService(service, serviceOf, known));
  problems.push(...checkListeners(services, known));
  for (const cell of cells) problems.push(...checkCell(cell, serviceNames, blueprintNames, known));
  problems.push(...checkAddresses(cells, known));
  for (const blueprint of blueprints) problems.push(...checkBlueprint(blueprint));
  for (const blueprint of blueprints) {
    const using = servicesUsing(blueprint.spec.name, { services, cells, known });
    problems.push(...checkIdentity(blueprint, using), ...checkMirroring(blueprint, using));
  }
  for (const service of services)
    problems.push(...checkStoredPlans(service, cells, new Set(blueprints.map(({ spec }) => spec.name)), known));
  return problems.sort((a, b) => a.document - b.document);
}

function checkService(
  { document, spec }: Placed<ServiceDocument>,
  serviceOf: Map<string, string>,
  known: Known,
): Problem[] {
  const problems: Problem[] = [];
  const synthetic = new Set(known.cells.filter(({ role }) => role === 'synthetic').map(({ name }) => name));
  for (const cell of Object.keys(spec.safeSplit)) {
    const path = ['safeSplit', cell];
    const service = serviceOf.get(cell);
    if (service === undefined)
      problems.push({ document, path, reason: `there is no cell ${cell}, neither here nor in the store` });
    else if (service !== spec.name)
      problems.push({ document, path, reason: `cell ${cell} belongs to service ${service}, not to ${spec.name}` });
    else if (synthetic.has(cell))
      problems.push({ document, path, reason: `cell ${cell} is synthetic: the safe split names declared cells only` });
  }
  const { prepare, shift } = spec.policy;
  if (prepare.enter > shift.enter)
    problems.push({
      document,
      path: ['policy', 'prepare', 'enter'],
      reason: `must not be above shift.enter (${shift.enter}), is ${prepare.enter}: what is not prepared cannot take traffic`,
    });
  if (prepare.exit > shift.exit)
    problems.push({
      document,
      path: ['policy', 'prepare', 'exit'],
      reason: `must not be above shift.exit (${shift.exit}), is ${prepare.exit}`,
    });
  return [...problems, ...checkTransport({ document, spec })];
}

/** Settings that do not go together. */
function checkTransport({ document, spec }: Placed<ServiceDocument>): Problem[] {
  const conflicts: [boolean, (string | number)[], string][] = [
    [
      spec.affinity !== undefined && spec.distribution === 'weighted-clusters',
      ['affinity'],
      'goes with distribution locality-weights only: among weighted clusters the cluster is chosen at random before the cookie is looked at, and choosing it by a hash of the cookie would move sessions at every step',
    ],
    [
      spec.http.repeatable.length > 0 && spec.protocol === 'grpc',
      ['http', 'repeatable'],
      'does not go with protocol grpc: grpc.retryOn says upon what a call is repeated',
    ],
    [
      spec.grpc.proxyless && spec.protocol !== 'grpc',
      ['grpc', 'proxyless'],
      `goes with protocol grpc only, not with ${spec.protocol}`,
    ],
    [
      spec.grpc.proxyless && spec.tls !== undefined,
      ['grpc', 'proxyless'],
      'does not go with tls: gRPC clients take certificates from providers of their own bootstrap and refuse any other',
    ],
    [
      spec.protocol === 'grpc' && spec.mirror.percent > 0 && spec.mirror.paths.length === 0,
      ['mirror', 'paths'],
      'is empty: every gRPC call is a POST, so name those that only read',
    ],
  ];
  return conflicts.filter(([isSo]) => isSo).map(([, path, reason]) => ({ document, path, reason }));
}

function checkListeners(services: Placed<ServiceDocument>[], known: Known): Problem[] {
  const problems: Problem[] = [];
  const changed = new Set(services.map(({ spec }) => spec.name));
  const taken = new Map<string, string>();
  for (const { name, spec } of known.services)
    if (!changed.has(name)) taken.set(`${spec.listener.address}:${spec.listener.port}`, name);
  for (const { document, spec } of services) {
    const listener = `${spec.listener.address}:${spec.listener.port}`;
    const other = taken.get(listener);
    if (other !== undefined && other !== spec.name)
      problems.push({ document, path: ['listener'], reason: `${listener} is already service ${other}'s` });
    taken.set(listener, spec.name);
  }
  return problems;
}

function checkCell(
  { document, spec }: Placed<CellDocument>,
  services: ReadonlySet<string>,
  blueprints: ReadonlySet<string>,
  known: Known,
): Problem[] {
  const problems: Problem[] = [];
  if (!services.has(spec.service))
    problems.push({
      document,
      path: ['service'],
      reason: `there is no service ${spec.service}, neither here nor in the store`,
    });
  if (!blueprints.has(spec.blueprint))
    problems.push({
      document,
      path: ['blueprint'],
      reason: `there is no blueprint ${spec.blueprint}, neither here nor in the store`,
    });
  const before = known.cells.find(({ name }) => name === spec.name);
  if (before?.role === 'synthetic')
    problems.push({ document, path: ['name'], reason: `${spec.name} is the name of a synthetic cell that exists now` });
  else if (before && before.service !== spec.service)
    problems.push({
      document,
      path: ['service'],
      reason: `the cell belongs to service ${before.service}; a cell keeps its service: give the new one another name`,
    });
  const names = new Set<string>();
  spec.instances.forEach(({ name }, index) => {
    if (names.has(name))
      problems.push({ document, path: ['instances', index, 'name'], reason: `instance ${name} is listed twice` });
    names.add(name);
  });
  return problems;
}

/** Envoy silently drops the second endpoint of one address, so each address stands for one instance only. */
function checkAddresses(cells: Placed<CellDocument>[], known: Known): Problem[] {
  const problems: Problem[] = [];
  const declared = new Set(cells.map(({ spec }) => spec.name));
  const taken = new Map<string, string>();
  for (const cell of known.cells)
    if (!declared.has(cell.name))
      for (const { address, port } of cell.instances) taken.set(`${address}:${port}`, `cell ${cell.name}`);
  for (const { document, spec } of cells)
    spec.instances.forEach(({ address, port }, index) => {
      const other = taken.get(`${address}:${port}`);
      if (other !== undefined)
        problems.push({
          document,
          path: ['instances', index],
          reason: `${address}:${port} already belongs to ${other}`,
        });
      taken.set(`${address}:${port}`, `cell ${spec.name}`);
    });
  return problems;
}

/** The services, as they will be, that have a cell of the blueprint. */
function servicesUsing(
  blueprint: string,
  { services, cells, known }: { services: Placed<ServiceDocument>[]; cells: Placed<CellDocument>[]; known: Known },
): ServiceDocument[] {
  const declared = new Set(cells.map(({ spec: { name } }) => name));
  const before = known.cells.filter((cell) => !declared.has(cell.name) && cell.blueprint.name === blueprint);
  const now = cells.filter((cell) => cell.spec.blueprint === blueprint).map((cell) => cell.spec);
  const specs = new Map(known.services.map((service) => [service.name, service.spec]));
  for (const service of services) specs.set(service.spec.name, service.spec);
  return [...new Set([...before, ...now].map(({ service }) => service))].flatMap((name) => specs.get(name) ?? []);
}

/** Envoy sends nothing to a cell that is not who it expects, and such a cell answers nobody who is not certified. */
function checkIdentity({ document, spec }: Placed<BlueprintDocument>, using: ServiceDocument[]): Problem[] {
  const { identity } = spec.security;
  if (!identity) return [];
  const said = (name: { kind: string; value: string }) => `${name.kind}:${name.value}`;
  return using.flatMap((service) => {
    const who = `the proxies of service ${service.name}`;
    const reasons: string[] = [];
    if (!service.tls) reasons.push(`${who} speak to its cells without TLS: give it tls with this subjectAltName`);
    else {
      const { subjectAltName, certificate } = service.tls;
      if (said(subjectAltName) !== said(identity))
        reasons.push(`${who} take only ${said(subjectAltName)} for a cell (tls.subjectAltName), not ${said(identity)}`);
      if (!certificate)
        reasons.push(`${who} show no certificate of their own (tls.certificate), and the cells ask for one`);
    }
    return reasons.map((reason) => ({ document, path: ['security', 'identity'], reason }));
  });
}

/** A step that waits for what is never sent. */
function checkMirroring({ document, spec }: Placed<BlueprintDocument>, using: ServiceDocument[]): Problem[] {
  return spec.warmUp.flatMap(({ kind }, index) =>
    using
      .filter(({ mirror }) => kind === 'mirror' && mirror.percent === 0)
      .map(({ name }) => ({
        document,
        path: ['warmUp', index],
        reason: `waits for copies of requests, and service ${name} mirrors none: give it mirror.percent above 0, or leave the step out`,
      })),
  );
}

/** As `checkMirroring`, for plans that the store holds already and a service that mirrors no more. */
function checkStoredPlans(
  { document, spec: service }: Placed<ServiceDocument>,
  cells: Placed<CellDocument>[],
  givenAnew: ReadonlySet<string>,
  known: Known,
): Problem[] {
  if (service.mirror.percent > 0) return [];
  const declared = new Set(cells.map(({ spec: { name } }) => name));
  // A cell that is not applied keeps its version, also where its blueprint is given anew.
  const kept = known.cells
    .filter(({ name, service: of, role }) => of === service.name && role !== 'synthetic' && !declared.has(name))
    .map(({ name, blueprint }) => ({ cell: name, blueprint: storedVersion(known, blueprint.name, blueprint.version) }));
  const now = cells
    .filter(({ spec }) => spec.service === service.name && !givenAnew.has(spec.blueprint))
    .map(({ spec }) => ({ cell: spec.name, blueprint: storedVersion(known, spec.blueprint) }));
  return [...kept, ...now].flatMap(({ cell, blueprint }) =>
    (blueprint?.spec.warmUp ?? []).flatMap(({ kind }, index) =>
      kind === 'mirror'
        ? [
            {
              document,
              path: ['mirror', 'percent'],
              reason: `is 0, and warmUp.${index} of version ${blueprint!.version} of blueprint ${blueprint!.name}, which ${cell} has, waits for copies of requests: leave it above 0, or apply ${cell} with a blueprint without that step`,
            },
          ]
        : [],
    ),
  );
}

/** The newest where no version is named. */
function storedVersion({ blueprints }: Known, name: string, version?: number): BlueprintVersion | undefined {
  const versions = blueprints.filter((each) => each.name === name);
  if (version !== undefined) return versions.find((each) => each.version === version);
  return versions.sort((a, b) => b.version - a.version)[0];
}

function checkBlueprint({ document, spec }: Placed<BlueprintDocument>): Problem[] {
  const problems: Problem[] = blueprintProblems(spec).map((problem) => ({ document, ...problem }));
  const { command, environment } = spec.image;
  const { capabilities = [] } = spec.security;
  const isProcess = spec.provider === 'process';
  const isDocker = spec.provider === 'docker';
  if (![...command, ...Object.values(environment)].some((text) => text.includes('{port}')))
    problems.push({
      document,
      path: ['image', 'command'],
      reason: 'neither the command nor the environment names {port}, so an instance cannot know where to listen',
    });
  if (spec.provider === 'docker' && spec.image.os === 'host')
    problems.push({ document, path: ['image', 'os'], reason: 'provider docker needs an image, such as shop:1.4' });
  // Protection that is written down and silently not there is worse than none. Egress is the machine's: the source and
  // its understudy run on the same one.
  const unprotected: [(string | number)[], boolean][] = [
    [['image', 'os'], spec.provider === 'process' && spec.image.os !== 'host'],
    [['security', 'secrets'], isDocker && spec.security.secrets.length > 0],
    [['security', 'capabilities'], isDocker && capabilities.length > 0],
    [['resources', 'processes'], isDocker && spec.resources.processes !== undefined],
    [['resources', 'openFiles'], isDocker && spec.resources.openFiles !== undefined],
    [['security', 'secrets'], isProcess && spec.security.secrets.some(({ from }) => !from.startsWith('file:'))],
    [['security', 'capabilities'], isProcess && capabilities.length > 0 && spec.security.user !== undefined],
    [['resources', 'processes'], isProcess && spec.resources.processes !== undefined && !spec.resources.enforce],
  ];
  for (const [path, isAsked] of unprotected)
    if (isAsked)
      problems.push({ document, path, reason: `provider ${spec.provider} cannot bring this about: leave it out` });
  return problems;
}
