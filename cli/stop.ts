/** `understudy stop` and `understudy resume`: freeze every automatic change of every service, and let them go on. */
import { Command, Option } from 'commander';
import { pino } from 'pino';
import type { FleetStop } from '../blueprints/records';
import { loadSettings, type Settings } from '../blueprints/settings';
import { ConfigurationStore } from '../blueprints/store';
import { channelCredentials } from '../envoy/security/credentials';
import { WatchedTls } from '../envoy/security/watched-tls';
import { TrafficClient, TrafficUnavailableError } from '../envoy/traffic-client';

interface Order {
  settings: string;
  by: string;
  reason: string;
  address?: string;
  breakGlass?: boolean;
}

/** What answers an order: the traffic API, or in an emergency the store. */
interface Orders {
  stop(by: string, reason: string): Promise<FleetStop>;
  resume(by: string, reason: string): Promise<FleetStop | undefined>;
}

export function stopCommand(): Command {
  return order('stop', 'Freezes every automatic change of every service at once; splits stay as they are.').action(
    (options: Order) =>
      give(options, 'Stop', async (orders) => {
        const stop = await orders.stop(options.by, options.reason);
        const isOurs = stop.by === options.by && stop.reason === options.reason;
        console.log(`${isOurs ? 'stopped' : 'was stopped already'} since ${stop.since} by ${stop.by}: ${stop.reason}`);
      }),
  );
}

export function resumeCommand(): Command {
  return order('resume', 'Lets automatic changes go on after a stop.').action((options: Order) =>
    give(options, 'Resume', async (orders) => {
      const stop = await orders.resume(options.by, options.reason);
      console.log(stop ? `resumed; it was stopped since ${stop.since} by ${stop.by}` : 'nothing was stopped');
    }),
  );
}

function order(name: string, description: string): Command {
  return new Command(name)
    .description(description)
    .addOption(new Option('--settings <file>', 'settings of Understudy').makeOptionMandatory())
    .requiredOption('--by <name>', 'who orders it')
    .requiredOption('--reason <text>', 'why')
    .option('--address <host:port>', 'traffic API to ask; default: controlPlane.trafficAddress')
    .option('--break-glass', 'if no control plane answers, write to Postgres past its authorisation');
}

/** Through the traffic API, which knows who may. Only if that does not answer, and only if it was said, past it. */
async function give(options: Order, method: string, carryOut: (orders: Orders) => Promise<void>): Promise<void> {
  const settings = loadSettings(options.settings);
  try {
    await overTheApi(settings, options.address, carryOut);
  } catch (error) {
    if (!(error instanceof TrafficUnavailableError)) throw error;
    if (!options.breakGlass) {
      throw new Error(
        `no control plane carries the order out: ${error.message}. Ask another replica (--address), or write to Postgres itself, past authorisation (--break-glass)`,
        { cause: error },
      );
    }
    console.error(`no control plane carries the order out (${error.message}); it is written to Postgres itself`);
    await pastTheApi(settings, options, method, carryOut);
  }
}

async function overTheApi(
  { controlPlane }: Settings,
  address: string | undefined,
  carryOut: (orders: Orders) => Promise<void>,
): Promise<void> {
  const { trafficAddress, trafficClientTls: files } = controlPlane;
  const tls = files && new WatchedTls(files, { what: 'traffic API', log: pino({ level: 'silent' }) });
  const client = new TrafficClient(address ?? trafficAddress, channelCredentials(tls));
  try {
    await carryOut(client);
  } finally {
    client.close();
    tls?.close();
  }
}

/** Written down as what it was: nobody has looked at who ordered it. */
async function pastTheApi(
  { postgres }: Settings,
  { by, reason }: Order,
  method: string,
  carryOut: (orders: Orders) => Promise<void>,
): Promise<void> {
  const store = await ConfigurationStore.connect(postgres.url, { timeoutMs: 5000 });
  try {
    const orders: Orders = {
      stop: (...words) => store.stopFleet(...words),
      resume: (...words) => store.resumeFleet(...words),
    };
    await carryOut(orders);
    await store.audit.add({
      kind: 'request',
      service: null,
      by,
      reason,
      outcome: 'OK',
      details: { method, breakGlass: true },
    });
  } finally {
    await store.close();
  }
}
