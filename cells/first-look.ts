/** Asks declared instances what Envoy will ask them, so that a wrong health path is told before callers meet it. */
import type { CellDocument, Document, ServiceDocument } from '../blueprints/schema';
import { readinessPathOf } from './capture/capture-cell';
import { request } from './http';

/** A look, not an inventory: of a large fleet the first ones show what is wrong with all. */
const mostAsked = 200;
const timeoutMs = 2_000;

/** One sentence for each service whose instances do not answer as Envoy wants it; those of other protocols are not asked. */
export async function firstLook(documents: readonly Document[]): Promise<string[]> {
  const services = documents.filter((one): one is ServiceDocument => one.kind === 'Service');
  const cells = documents.filter((one): one is CellDocument => one.kind === 'Cell');
  const told = await Promise.all(
    services
      .filter(({ protocol, tls }) => protocol === 'http/1.1' && tls === undefined)
      .map((service) => lookAtService(service, instancesOf(service, cells))),
  );
  return told.flat();
}

type Instance = CellDocument['instances'][number];

const instancesOf = ({ name }: ServiceDocument, cells: readonly CellDocument[]): Instance[] =>
  cells.filter(({ service }) => service === name).flatMap(({ instances }) => instances);

async function lookAtService(service: ServiceDocument, instances: readonly Instance[]): Promise<string[]> {
  const { path } = service.healthCheck;
  const asked = await Promise.all(
    instances.slice(0, mostAsked).map(async (instance) => ({ instance, answer: await answerOf(instance, path) })),
  );
  const silent = asked.filter(({ answer }) => answer === 'silent').map(({ instance }) => instance);
  const refusing = asked.filter(({ answer }) => typeof answer === 'number' && answer !== 200);
  const sentences: string[] = [];
  const first = refusing[0];
  if (first) {
    const { address, port } = first.instance;
    const better = await readinessPathOf(address, port);
    const names = refusing.map(({ instance }) => instance.name).join(', ');
    sentences.push(
      `Service ${service.name}: ${names} answered ${path} with ${first.answer}, not 200: Envoy will send no requests there.` +
        ` ${better === undefined ? 'Set' : `${better} was answered: set`} healthCheck.path of the service.`,
    );
  }
  if (silent.length > 0) {
    const places = silent.map(({ name, address, port }) => `${name} (${address}:${port})`).join(', ');
    sentences.push(`Service ${service.name}: not reached from here: ${places}.`);
  }
  return sentences;
}

const answerOf = (instance: Instance, path: string): Promise<number | 'silent'> =>
  request(instance, path, { timeoutMs }).then(
    ({ status }) => status,
    () => 'silent',
  );
