/** How fast a new cell applies a changelog that is there already: from its first record to caught up. */
import { Kafka, logLevel, CompressionTypes } from 'kafkajs';
import { catchUp, handOver } from '../../cells/data-sync/handover';
import { createChangelog, sourceWorld } from '../../lab/stateful/changelog-world';
import { startStack } from '../../local/stack';
import { atLeast, plain, type Figure } from '../figures';

const changes = 600_000;
const perBatch = 4_000;

export async function catchUpFigures(): Promise<Figure[]> {
  const stack = await startStack({ parts: ['kafka'] });
  try {
    await fill(stack.addresses.kafka, 'log.changelog');
    // Both cells are made when the log is full: the second one's way to its end is what is measured.
    const world = await sourceWorld(stack, 'log', 1);
    try {
      await handOver({ sync: world.sync, to: world.source, cells: [world.source] });
      const sinceMs = performance.now();
      const synthetic = await world.startSynthetic();
      const startedMs = performance.now();
      await catchUp(world.sync, synthetic, world.source);
      const tookS = (performance.now() - startedMs) / 1000;
      return [
        plain('kafka-changelog: changes in the log', changes, 'changes'),
        plain('kafka-changelog: start of the cell', (startedMs - sinceMs) / 1000, 's'),
        plain('kafka-changelog: from its start to caught up', tookS, 's'),
        atLeast('kafka-changelog: catch-up', changes / ((performance.now() - sinceMs) / 1000), 'changes/s', 50_000),
      ];
    } finally {
      await world.stop();
    }
  } finally {
    await stack.stop();
  }
}

/** Changes as a service writes them: registers of which each is set a few times, and appends. */
async function fill(broker: string, topic: string): Promise<void> {
  await createChangelog(broker, topic);
  const kafka = new Kafka({ brokers: [broker], logLevel: logLevel.NOTHING });
  const producer = kafka.producer();
  await producer.connect();
  for (let first = 0; first < changes; first += perBatch) {
    const messages = Array.from({ length: perBatch }, (_, i) => {
      const n = first + i;
      const change =
        n % 2 === 0
          ? { kind: 'append', list: `list-${n % 100}`, value: `value-${n}` }
          : { kind: 'set', register: `register-${n % 50_000}`, version: n, value: `value ${n} of some length` };
      return { key: `change ${n}`, value: JSON.stringify({ kind: 'change', change }) };
    });
    await producer.send({ topic, messages, acks: -1, compression: CompressionTypes.None });
  }
  await producer.disconnect();
}
