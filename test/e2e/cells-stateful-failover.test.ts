/**
 * Services that keep data, one in a changelog and one in a Postgres of each cell's own, failed over by the real workflow:
 * Kafka, Temporal, Postgres, control plane, Envoy. Clients ask through Envoy all the time and write down what they were
 * told; the checker judges it.
 */
import { randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { Client, Connection } from '@temporalio/client';
import { expect } from 'chai';
import { ConfigurationStore } from '../../blueprints/store';
import type { DataState } from '../../cells/data-sync/contract';
import { ProcessProvider } from '../../cells/process-provider';
import { startDeclaredCell } from '../../cells/source-cells';
import { TrafficClient } from '../../envoy/traffic-client';
import { createChangelog } from '../../lab/stateful/changelog-world';
import { checkHistory } from '../../lab/stateful/checker';
import { Clients } from '../../lab/stateful/clients';
import { releasePorts, reservePorts } from '../../local/ports';
import { startStack, type Stack } from '../../local/stack';
import { waitUntil } from '../../local/wait';
import { packageRoot } from '../../package-root';
import type { RiskLevel } from '../../prediction/contracts';
import { poolScheduleId } from '../../workers/schedules';
import { failoverWorkflowId, poolOwner, signalNames, workflowTypes, type Dossier } from '../../workflows/messages';
import { blueprintDocument, cellDocument, serviceDocument } from '../support/documents';
import { failoverInWords } from '../support/failover-in-words';
import { riskEvent } from '../support/failover-world';

/** What differs between the two kinds of data. */
interface Kind {
  name: string;
  service: string;
  program: string;
  /** Flags of the program beside those that say who and where it is. */
  flags: (stack: Stack) => Record<string, string | true>;
  blueprint: (stack: Stack) => Record<string, unknown>;
  /** Before the service is applied. */
  prepare: (stack: Stack) => Promise<void>;
  /** The sentence of the read-back. */
  owned: (cell: string, epoch: number) => string;
  /** What is told of a dead owner. */
  fenced: (owner: string, by: string) => string;
}

/** Schedules fire at whole multiples of their interval since 1970; this one's next is in 2069: pools are looked at when a test says so. */
const neverS = 100 * 365 * 86_400;

/** As a cell says it of itself. */
type Said = Pick<DataState, 'role' | 'position' | 'owner'>;

const topic = 'shop.changelog';
const passwordFile = (stack: Stack) => join(stack.dir, 'ledger-password');

const kinds: Kind[] = [
  {
    name: 'on a changelog',
    service: 'shop',
    program: 'changelog-service.js',
    flags: ({ settings }) => ({ service: '{service}', kafka: settings.kafka.brokers.join(), topic }),
    blueprint: ({ settings: { kafka } }) => ({
      network: { egress: kafka.brokers },
      dataSync: { kind: 'kafka-changelog', brokers: kafka.brokers, topic },
    }),
    prepare: ({ settings }) => createChangelog(settings.kafka.brokers[0]!, topic),
    owned: (cell, epoch) => `the log names ${cell} its owner in epoch ${epoch}`,
    fenced: (owner) => `${owner} does not answer; Kafka refuses its writes`,
  },
  {
    name: 'on a Postgres of each cell',
    service: 'ledger',
    program: 'postgres-service.js',
    flags: () => ({ dir: '{dir}', 'password-file': '{secret:database}', bootstrap: true }),
    blueprint: (stack) => ({
      security: { secrets: [{ name: 'database', from: `file:${passwordFile(stack)}` }] },
      dataSync: {
        ...{ kind: 'postgres', database: 'understudy', user: 'understudy' },
        passwordFile: passwordFile(stack),
      },
    }),
    prepare: async (stack) => writeFileSync(passwordFile(stack), 'of the test only', { mode: 0o600 }),
    owned: (cell, epoch) => `the database of ${cell} is a primary and names it the owner in epoch ${epoch}`,
    fenced: (_, by) => `without ${by} as its standby it acknowledges nothing`,
  },
];

describe('A stateful service under the failover workflow', function () {
  this.timeout(300_000);
  let stack: Stack;
  let store: ConfigurationStore;
  let traffic: TrafficClient;
  let connection: Connection;
  let client: Client;
  let provider: ProcessProvider;

  before(async () => {
    stack = await startStack({
      parts: ['kafka', 'temporal', 'postgres', 'control-plane', 'failover-worker', 'envoy'],
      settings: { cells: { poolEveryS: neverS } },
    });
    store = await ConfigurationStore.connect(stack.settings.postgres.url);
    traffic = new TrafficClient(stack.addresses.trafficApi);
    connection = await Connection.connect({ address: stack.addresses.temporal });
    client = new Client({ connection, namespace: stack.settings.temporal.namespace });
    provider = new ProcessProvider(stack.settings.processProvider);
  });

  after(async () => {
    await connection?.close();
    traffic?.close();
    await store?.close();
    await stack?.stop();
  });

  for (const kind of kinds) describe(kind.name, () => roadOf(kind));

  function roadOf({ service, program, flags, blueprint, prepare, owned, fenced }: Kind): void {
    const [source, other] = [`${service}-a`, `${service}-b`];
    const failoverId = failoverWorkflowId(service, source);
    let port: number;
    let clients: Clients | undefined;
    /** The scoring worker's part: repeats the risk while it lasts. */
    let level: RiskLevel | null = null;
    /** Words on the risk go one after the other: a repetition that came after the last one would take it back. */
    let lastWord: Promise<unknown> = Promise.resolve();
    let episode = randomUUID();
    let isOver = false;
    let telling: Promise<void> | undefined;

    before(async () => {
      [port] = (await reservePorts(1)) as [number];
      await prepare(stack);
      const given: Record<string, string | true> = {
        cell: '{cell}',
        address: '{address}',
        port: '{port}',
        ...flags(stack),
      };
      const args = Object.entries(given).flatMap(([flag, value]) =>
        value === true ? [`--${flag}`] : [`--${flag}`, value],
      );
      await store.apply([
        serviceOf(),
        blueprintDocument({
          name: service,
          image: {
            command: [process.execPath, join(packageRoot, 'dist/lab/stateful', program), ...args],
            environment: { KAFKAJS_NO_PARTITIONER_WARNING: '1' },
          },
          resources: { instances: 1, memoryLimitMib: 256 },
          readiness: { timeoutS: 60 },
          warmUp: [{ kind: 'connections', path: '/healthz' }],
          scaleDown: { keep: 'expected-cost' },
          ...blueprint(stack),
        }),
        ...[source, other].map((name) => cellDocument(name, { service, blueprint: service })),
      ]);
      await Promise.all([source, other].map((cell) => startDeclaredCell(provider, store, cell)));
      const asked = { name: 'envoy', address: '127.0.0.1', port };
      clients = new Clients({ seed: 1, clients: 4, pauseMs: 40, cells: () => [asked] });
      await writesGoOn();
      telling = repeatRisk();
    });

    after(async () => {
      isOver = true;
      await telling;
      await clients?.abandon();
      releasePorts([port]);
    });

    /** Quick steps, a verdict after few requests. With a `canaryMinRequests` out of reach the first share lasts. */
    function serviceOf(canaryMinRequests = 10) {
      const policy = {
        ...{ autonomy: 'act', canaryMinRequests, maxErrorRatio: 0.2, canaryBp: 2500, canary: { maxBp: 2500 } },
        ...{ canaryTimeoutS: 200, leadTime: { emergencyShift: false } },
        ...{ stepBp: 2500, stepIntervalS: 0.5, reductionBp: 2500, reductionIntervalS: 0.5 },
        ...{ wayBack: { calmS: 1 }, cooldownS: 1 },
        pool: { outageCostPerMinute: 1e6, mostIdle: 1 },
      };
      return serviceDocument({
        ...{ name: service, safeSplit: { [source]: 5000, [other]: 5000 } },
        listener: { port },
        healthCheck: { intervalMs: 500 },
        policy,
      });
    }

    async function repeatRisk(): Promise<void> {
      for (; !isOver; await pause(2000)) {
        if (level && level !== 'clear') await tell(level).catch(() => undefined);
      }
    }

    async function tell(now: RiskLevel): Promise<void> {
      level = now;
      const event = {
        ...riskEvent(now, Date.now()),
        ...{ service, cell: source },
        ...{ eventId: randomUUID(), episodeId: episode },
        timeToFailureS: { p10: 120, p50: 240, p90: 480 },
      };
      const say = () =>
        client.workflow.signalWithStart(workflowTypes.predictiveFailover, {
          workflowId: failoverId,
          taskQueue: stack.settings.temporal.failoverTaskQueue,
          args: [{ service, cell: source }],
          signal: signalNames.riskChanged,
          signalArgs: [event],
        });
      await (lastWord = lastWord.then(say, say));
    }

    async function shares(): Promise<Record<string, number>> {
      const { cells } = await traffic.getTraffic(service);
      return Object.fromEntries(cells.map((c) => [c.cell, c.shareBp]));
    }

    async function moved(atLeastBp: number): Promise<void> {
      await waitUntil(async () => (await shares())[source]! <= 5000 - atLeastBp, {
        withinMs: 180_000,
        what: `${atLeastBp} bp are moved from ${source}`,
        instead: () => failoverInWords(client, store, failoverId),
      });
    }

    /** Until appends and registers are acknowledged anew. */
    async function writesGoOn(): Promise<void> {
      const before = clients!.acknowledgedWrites();
      await waitUntil(async () => clients!.acknowledgedWrites() >= before + 20, {
        withinMs: 60_000,
        what: 'writes are acknowledged through Envoy',
      });
    }

    async function saidBy(cell: string): Promise<Said> {
      const { instances } = (await store.cell(cell))!;
      const response = await fetch(`http://${instances[0]!.address}:${instances[0]!.port}/data-sync`);
      return (await response.json()) as Said;
    }

    /** The other cell hears of it by the data. */
    async function ownedBy(cell: string): Promise<void> {
      const isOwned = async () => (await saidBy(other)).owner?.cell === cell;
      await waitUntil(isOwned, { withinMs: 120_000, what: `${cell} owns the data` });
    }

    /** It has what the owner had written when this was asked. */
    async function keepsUp(cell: string, owner: string): Promise<void> {
      const { position } = await saidBy(owner);
      let said: Said | undefined;
      const isThere = async () => {
        said = await saidBy(cell);
        return said.role === 'follower' && said.owner?.cell === owner && said.position >= position;
      };
      await waitUntil(isThere, {
        ...{ withinMs: 120_000, what: `${cell} follows ${owner} up to ${position}` },
        instead: async () => JSON.stringify(said),
      });
    }

    async function idle(): Promise<string[]> {
      const cells = await store.cells(service);
      return cells.filter(({ state, owner }) => state === 'idle' && owner === null).map(({ name }) => name);
    }

    /** The owner of the data acknowledges writes though the cell stands still. */
    async function holdsUpNobody(cell: string): Promise<void> {
      const { blueprint } = (await store.cell(cell))!;
      await provider.idle(cell, 'frozen');
      await writesGoOn();
      const { spec } = (await store.blueprint(blueprint.name, blueprint.version))!;
      await provider.ensure({ cell, service, owner: 'nobody', blueprint: spec });
    }

    async function ended(): Promise<Dossier> {
      await client.workflow.getHandle(failoverId).result();
      return (await store.dossier(failoverId))!;
    }

    const newestOfPool = async () => (await store.decisions(service)).find(({ kind }) => kind === 'pool');
    const storyOf = (dossier: Dossier) => JSON.stringify(dossier.entries, null, 1);

    it('has its idle pool filled with a cell that follows its data and holds up nobody', async () => {
      await ownedBy(source);
      let told: string | undefined;
      await waitUntil(
        async () => {
          const newest = await newestOfPool();
          // A busy machine may have kept it from being made, and the next attempt is minutes away.
          if (newest && newest.id !== told)
            await client.workflow
              .getHandle(poolOwner(service))
              .cancel()
              .catch(() => undefined);
          told = newest?.id;
          // Seen first: a look that is still under way when a failover takes the cell would make another for the pool.
          if ((await idle()).length === 1) return true;
          await client.schedule.getHandle(poolScheduleId).trigger();
          return false;
        },
        {
          ...{ withinMs: 180_000, everyMs: 1000, what: 'a cell waits idle' },
          instead: async () => (await newestOfPool())?.what ?? 'nothing is told of the pool',
        },
      );
      const [pooled] = await idle();
      await holdsUpNobody(pooled!);
      await keepsUp(pooled!, source);
    });

    it('goes to that cell with its data, and back when the risk clears, after which the cell follows again', async () => {
      const [pooled] = await idle();
      await tell('shift');
      await moved(2501);
      const synthetic = (await store.cells(service)).find(({ owner }) => owner === failoverId)!.name;
      expect(synthetic).to.equal(pooled);
      await ownedBy(synthetic);
      await tell('clear');
      const dossier = await ended();
      expect(dossier.outcome, dossier.reason ?? '').to.equal('drained');
      expect(await shares()).to.include({ [source]: 5000, [other]: 5000 });
      await ownedBy(source);
      await writesGoOn();
      expect(await idle()).to.deep.equal([synthetic]);
      await keepsUp(synthetic, source);
      expect(storyOf(dossier)).to.contain(owned(synthetic, 2));
      expect(storyOf(dossier)).to.contain(owned(source, 3));
    });

    it('goes to it also when the source is killed with -9 in the middle, and nothing acknowledged is lost', async () => {
      episode = randomUUID();
      await store.apply([serviceOf(1_000_000)]);
      await tell('shift');
      await moved(1);
      // The first share is a trial of reads: the source still owns the data.
      await ownedBy(source);
      // A dead cell tells nothing of its risk either.
      level = null;
      for (const { pid } of (await provider.observe(source)).instances) process.kill(pid!, 'SIGKILL');
      const dossier = await ended();
      expect(dossier.outcome, dossier.reason ?? '').to.equal('failed-over');
      const synthetic = dossier.syntheticCell!;
      await ownedBy(synthetic);
      expect(storyOf(dossier)).to.contain('data caught up');
      expect(storyOf(dossier)).to.contain('the gate is open');
      expect(storyOf(dossier)).to.contain(fenced(source, synthetic));
      expect(storyOf(dossier)).to.contain(owned(synthetic, 4));
      await writesGoOn();
      const history = await clients!.finish(60_000);
      expect(checkHistory(history).map(({ rule, text }) => `${rule}: ${text}`)).to.deep.equal([]);
      expect(clients!.acknowledgedWrites()).to.be.greaterThan(100);
    });
  }
});
