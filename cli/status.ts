/** `understudy status`: of every cell what arrives of it, how it is judged, and what it carries. For "is my telemetry read?" */
import { Command } from 'commander';
import { Kafka, logLevel, type Consumer } from 'kafkajs';
import { randomBytes } from 'node:crypto';
import { loadSettings, type Settings } from '../blueprints/settings';
import type { CellRecord, CellShare, ServiceRecord } from '../blueprints/records';
import type { Score } from '../prediction/contracts';
import { cellsAlarm, cellsStatus } from './cells-status';
import { asColumns, settingsOption, withStore } from './temporal';

/** A group of consumers takes some seconds to form. */
const listenAtMostMs = 15_000;
/** Once the first score is in, those of the other cells follow within a step. */
const furtherMs = 2_500;

export interface Heard {
  scores: Map<string, Score>;
  /** How many records were refused while we listened, by reason and detail. */
  refused: Map<string, number>;
}

export function statusCommand(): Command {
  return new Command('status')
    .description(
      'Of every cell: whether its telemetry is read, how it is judged, what it carries. Listens for seconds.',
    )
    .argument('[service]', 'of this one only')
    .addOption(settingsOption())
    .action(async (service: string | undefined, options: { settings: string }) => {
      const settings = loadSettings(options.settings);
      const known = await withStore(settings, async (store) => {
        const services = (await store.services()).filter(({ name }) => service === undefined || name === service);
        if (service !== undefined && services.length === 0)
          throw new Error(`There is no service ${service} in the store.`);
        const cells = await store.cells(service);
        const shares = await Promise.all(services.map(async ({ name }) => (await store.traffic(name))?.split ?? []));
        return { services, cells, shares: shares.flat(), alarm: cellsAlarm(await cellsStatus(store)) };
      });
      console.log(statusText(known, await listen(settings), settings.kafka));
      if (known.alarm !== null) console.log(known.alarm);
    });
}

/** To scores and dead letters, from now on. */
async function listen({ kafka: { brokers, scoresTopic, deadLetterTopic } }: Settings): Promise<Heard> {
  const kafka = new Kafka({
    clientId: 'understudy-status',
    brokers,
    logLevel: logLevel.NOTHING,
    retry: { retries: 2 },
  });
  const groupId = `understudy-status-${randomBytes(6).toString('hex')}`;
  const consumer = kafka.consumer({ groupId, allowAutoTopicCreation: false });
  try {
    await consumer.connect();
    await consumer.subscribe({ topics: [scoresTopic, deadLetterTopic], fromBeginning: false });
    return await gather(consumer, scoresTopic);
  } catch (error) {
    throw new Error(`Kafka at ${brokers.join(', ')}: ${(error as Error).message}`, { cause: error });
  } finally {
    await consumer.disconnect();
    // Nobody comes back to it.
    const admin = kafka.admin();
    await admin.connect();
    await admin.deleteGroups([groupId]).catch(() => undefined);
    await admin.disconnect();
  }
}

async function gather(consumer: Consumer, scoresTopic: string): Promise<Heard> {
  const heard: Heard = { scores: new Map(), refused: new Map() };
  await new Promise<void>((resolve, reject) => {
    let ending = setTimeout(resolve, listenAtMostMs);
    consumer
      .run({
        eachMessage: async ({ topic, message }) => {
          if (heard.scores.size + heard.refused.size === 0) {
            clearTimeout(ending);
            ending = setTimeout(resolve, furtherMs);
          }
          if (topic === scoresTopic) hearScore(heard, message.value);
          else hearRefusal(heard, message.headers ?? {});
          return Promise.resolve();
        },
      })
      .catch(reject);
  });
  return heard;
}

function hearScore({ scores }: Heard, value: Buffer | null): void {
  if (value === null) return;
  const score = JSON.parse(value.toString()) as Score;
  scores.set(score.cell, score);
}

function hearRefusal({ refused }: Heard, headers: Record<string, unknown>): void {
  const text = (name: string) => {
    const value = headers[`understudy-${name}`];
    return typeof value === 'string' || Buffer.isBuffer(value) ? value.toString() : '';
  };
  const why = `${text('topic')}: ${text('reason')}: ${text('detail')}`;
  refused.set(why, (refused.get(why) ?? 0) + 1);
}

interface Known {
  services: readonly ServiceRecord[];
  cells: readonly CellRecord[];
  shares: readonly CellShare[];
}

export function statusText(
  { services, cells, shares }: Known,
  { scores, refused }: Heard,
  { telemetry }: { telemetry: readonly { topic: string }[] },
): string {
  const lines: string[] = [];
  for (const { name, spec } of services) {
    const { listener, policy } = spec;
    lines.push(`${name}: callers at ${listener.address}:${listener.port}, autonomy ${policy.autonomy}`);
  }
  const rows = cells.map(({ name, role, state }) => {
    const share = shares.find(({ cell }) => cell === name)?.shareBp ?? 0;
    const isIdle = role === 'synthetic' && share === 0;
    return [name, role, state, `${share / 100} %`, ...(isIdle ? ['', '', ''] : judged(scores.get(name), spec(name)))];
  });
  if (rows.length > 0)
    lines.push(asColumns([['CELL', 'ROLE', 'STATE', 'SHARE', 'HEALTH', 'FAILURE', 'TELEMETRY'], ...rows]));
  for (const [why, times] of refused) lines.push(`refused ${times} times while we listened: ${why}`);
  const unread = cells.filter(
    ({ name, role }) => role !== 'synthetic' && judged(scores.get(name), spec(name))[0] === '?',
  );
  if (unread.length > 0) {
    const topics = telemetry.map(({ topic }) => topic).join(', ');
    lines.push(`Nothing, or too little, is read of ${unread.map(({ name }) => name).join(', ')}. Topics: ${topics}.`);
  }
  return lines.join('\n');

  function spec(cell: string): ServiceRecord['spec'] | undefined {
    const of = cells.find(({ name }) => name === cell)?.service;
    return services.find(({ name }) => name === of)?.spec;
  }
}

function judged(score: Score | undefined, spec: ServiceRecord['spec'] | undefined): [string, string, string] {
  if (!score || score.health === 'unknown') return ['?', '', 'none, or too little'];
  const { horizonS } = spec?.policy ?? { horizonS: 60 };
  const probability = score.probability[String(horizonS)];
  const failure = probability === undefined ? '' : `${probability.toFixed(2)} within ${horizonS} s`;
  return [String(score.health), failure, `read, trust ${score.trust.toFixed(2)}`];
}
