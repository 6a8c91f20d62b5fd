/** The stateful reference service on a Kafka changelog, as a process: one instance of a cell. */
import { numberFlag, readFlags } from '../arguments';
import { keepIdleClientsIdle } from '../services/quiet-kafka';
import { ChangelogCore } from './changelog-core';
import { serve } from './front';

const flags = readFlags({
  cell: 'string',
  service: 'string',
  address: 'string',
  port: 'string',
  kafka: 'string',
  topic: 'string',
  'kafka-via-port': 'string',
  instance: 'string',
  /** It tells how it is, and can be made to leak. */
  ailing: 'boolean',
});

/** Loaded only where it is wanted: the telemetry is larger than the service. */
async function toldAndAiling(cell: string, service: string, brokers: string[]) {
  const { ailing } = await import('./ailing.js');
  const instance = flags.instance ?? `${cell}-1`;
  return ailing({ service, cell, instance, brokers, stepMs: 1000, encoding: 'protobuf' });
}

async function main(): Promise<void> {
  keepIdleClientsIdle();
  const { cell = 'cell', service = 'service', address = '127.0.0.1', kafka = '127.0.0.1:9092' } = flags;
  const port = numberFlag('port', flags.port, 8080);
  const viaPort = flags['kafka-via-port'];
  const core = new ChangelogCore(
    {
      brokers: kafka.split(','),
      topic: flags.topic ?? `${service}.changelog`,
      transactionalId: `${service}.writer`,
      clientId: cell,
      ...(viaPort !== undefined && { viaPort: numberFlag('kafka-via-port', viaPort, 0) }),
    },
    { cell, address, port },
  );
  const before = flags.ailing ? await toldAndAiling(cell, service, kafka.split(',')) : undefined;
  await serve(core, address, port, before);
  await core.start();
  process.stdout.write(`${cell} follows ${flags.topic ?? service} and answers on ${address}:${port}\n`);
  process.once('SIGTERM', () => void core.close().finally(() => process.exit(0)));
}

void main();
