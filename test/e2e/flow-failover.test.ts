/**
 * Failovers by the real worker process: Temporal, Postgres, control plane, Envoy, and cells that are processes. They have
 * identities and a secret, which may stand nowhere but in their files.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { Client, Connection } from '@temporalio/client';
import { Worker } from '@temporalio/worker';
import { expect } from 'chai';
import { ConfigurationStore } from '../../blueprints/store';
import { CellIdentities } from '../../cells/identity/cell-identities';
import { makeAuthority } from '../../cells/identity/new-authority';
import { ProcessProvider } from '../../cells/process-provider';
import { startDeclaredCell } from '../../cells/source-cells';
import { sendOverride } from '../../cli/failover';
import { giveBack } from '../../cli/failover/give-back';
import { TrafficClient } from '../../envoy/traffic-client';
import { releasePorts, reservePorts } from '../../local/ports';
import { startStack, type Stack } from '../../local/stack';
import { waitUntil } from '../../local/wait';
import type { RiskLevel } from '../../prediction/contracts';
import { failoverWorkflowId, signalNames, workflowTypes, type FailoverResult } from '../../workflows/messages';
import { packageRoot } from '../../package-root';
import { blueprintDocument, cellDocument, serviceDocument } from '../support/documents';
import { quietRuntime, workflowBundle } from '../support/failover-bench';
import { failoverInWords } from '../support/failover-in-words';
import { riskEvent } from '../support/failover-world';
import { failuresOfTasks } from '../support/failures-of-tasks';
import { findEverywhere, placesOf } from '../support/secret-search';

const failoverId = failoverWorkflowId('shop', 'shop-a');
const spiffe = (path: string): string => `spiffe://shop.example/${path}`;

describe('Failover worker process', function () {
  this.timeout(300_000);
  let stack: Stack;
  let store: ConfigurationStore;
  let traffic: TrafficClient;
  let connection: Connection;
  let client: Client;
  let provider: ProcessProvider;
  let port: number;
  /** The scoring worker's part: repeats the risk while it lasts. */
  let level: RiskLevel | null = null;
  /** Words on the risk go one after the other: a repetition that came after the last one would take it back. */
  let lastWord: Promise<unknown> = Promise.resolve();
  let episode = randomUUID();
  let isOver = false;
  let helpers: Promise<unknown>[] = [];
  const secretsDir = mkdtempSync(join(tmpdir(), 'understudy-secrets-'));
  const password = randomBytes(24).toString('hex');
  /** Not secret, and where secrets must not be: whoever looks for them has to find this. */
  const canary = `canary-${randomBytes(24).toString('hex')}`;

  before(async () => {
    quietRuntime();
    [port] = (await reservePorts(1)) as [number];
    const passwordFile = join(secretsDir, 'password');
    writeFileSync(passwordFile, password, { mode: 0o600 });
    const authority = await makeAuthority({ name: 'authority of the cells', days: 1 });
    const certificateFile = join(secretsDir, 'ca.crt');
    const privateKeyFile = join(secretsDir, 'ca.key');
    writeFileSync(certificateFile, authority.certificate);
    writeFileSync(privateKeyFile, authority.key, { mode: 0o600 });
    stack = await startStack({
      parts: ['temporal', 'postgres', 'control-plane', 'failover-worker', 'envoy'],
      settings: {
        cells: {
          identity: {
            folder: join(secretsDir, 'identities'),
            issuer: { kind: 'local', certificateFile, privateKeyFile },
            lifetimeS: 86_400,
            client: { kind: 'uri', value: spiffe('understudy/worker') },
            shownWithinS: 5,
          },
        },
        logLevel: 'debug',
      },
    });
    store = await ConfigurationStore.connect(stack.settings.postgres.url);
    traffic = new TrafficClient(stack.addresses.trafficApi);
    connection = await Connection.connect({ address: stack.addresses.temporal });
    client = new Client({ connection, namespace: stack.settings.temporal.namespace });
    const identities = new CellIdentities(stack.settings.cells.identity!);
    provider = new ProcessProvider({ ...stack.settings.processProvider, ownTls: identities.ownTls });
    const proxy = blueprintDocument({ security: { identity: { kind: 'uri', value: spiffe('envoy/{cell}') } } });
    await identities.provide('edge', ['edge'], proxy);
    const edge = identities.filesOf('edge', 'edge');
    const policy = {
      autonomy: 'act',
      canaryMinRequests: 10,
      maxErrorRatio: 0.2,
      canaryBp: 2500,
      canary: { maxBp: 2500 },
      stepBp: 2500,
      stepIntervalS: 0.5,
      reductionBp: 2500,
      reductionIntervalS: 0.5,
      wayBack: { calmS: 1 },
      cooldownS: 1,
    };
    await store.apply([
      serviceDocument({
        listener: { port },
        policy,
        mirror: { percent: 100 },
        tls: {
          trustedCa: { file: certificateFile },
          certificate: { chainFile: edge.certificateFile, keyFile: edge.privateKeyFile },
          subjectAltName: { kind: 'uri', value: spiffe('cell/{cell}') },
        },
      }),
      blueprintDocument({
        image: {
          command: [
            ...[process.execPath, join(packageRoot, 'dist/test/support/mtls-cell-server.js'), '--keep-alive'],
            ...['--port', '{port}', '--name', '{instance}', '--password-file', '{secret:db-password}', canary],
          ],
          environment: { CANARY: canary },
        },
        readiness: { timeoutS: 60 },
        security: {
          identity: { kind: 'uri', value: spiffe('cell/{cell}') },
          secrets: [{ name: 'db-password', from: `file:${passwordFile}` }],
        },
        warmUp: [
          { kind: 'connections', path: '/healthz' },
          { kind: 'mirror', requests: 20, timeoutS: 60, tolerance: 0.5 },
        ],
      }),
      cellDocument('shop-a'),
      cellDocument('shop-b'),
    ]);
    await Promise.all(
      ['shop-a', 'shop-b'].map((cell) => startDeclaredCell(provider, store, cell, undefined, identities)),
    );
    await waitUntil(call, { withinMs: 30_000, what: 'Envoy serves the shop' });
    helpers = [callers(), scoring()];
  });

  after(async () => {
    isOver = true;
    await Promise.all(helpers);
    await connection?.close();
    traffic?.close();
    await store?.close();
    await stack?.stop();
    releasePorts([port]);
    rmSync(secretsDir, { recursive: true, force: true });
  });

  async function call(): Promise<boolean> {
    const response = await fetch(`http://127.0.0.1:${port}/healthz`, { signal: AbortSignal.timeout(5000) });
    await response.arrayBuffer();
    return response.ok;
  }

  async function callers(): Promise<void> {
    for (; !isOver; await pause(20)) await call().catch(() => undefined);
  }

  async function scoring(): Promise<void> {
    for (; !isOver; await pause(2000)) {
      if (level && level !== 'clear') await tell(level).catch(() => undefined);
    }
  }

  async function tell(now: RiskLevel): Promise<void> {
    level = now;
    const event = {
      ...{ ...riskEvent(now, Date.now()), eventId: randomUUID(), episodeId: episode },
      // Time enough to go step by step.
      timeToFailureS: { p10: 120, p50: 240, p90: 480 },
    };
    const say = () =>
      client.workflow.signalWithStart(workflowTypes.predictiveFailover, {
        workflowId: failoverId,
        taskQueue: stack.settings.temporal.failoverTaskQueue,
        args: [{ service: 'shop', cell: 'shop-a' }],
        signal: signalNames.riskChanged,
        signalArgs: [event],
      });
    await (lastWord = lastWord.then(say, say));
  }

  async function shares(): Promise<Record<string, number>> {
    const { cells } = await traffic.getTraffic('shop');
    return Object.fromEntries(cells.map((c) => [c.cell, c.shareBp]));
  }

  async function moved(atLeastBp: number): Promise<void> {
    await waitUntil(async () => (await shares())['shop-a']! <= 5000 - atLeastBp, {
      withinMs: 120_000,
      what: `${atLeastBp} bp are moved from shop-a`,
      instead: () => failoverInWords(client, store, failoverId),
    });
  }

  /** Ended, each change made once, and replayable. */
  async function outcome(): Promise<FailoverResult> {
    const handle = client.workflow.getHandle(failoverId);
    const { runId } = await handle.describe();
    const result = (await handle.result()) as FailoverResult;
    const history = await client.workflow.getHandle(failoverId, runId).fetchHistory();
    expect(history.events!.length).to.be.below(400);
    expect(failuresOfTasks(history)).to.deep.equal([]);
    await Worker.runReplayHistory({ workflowBundle: await workflowBundle() }, history, failoverId);
    const keys = (await store.splitChanges('shop')).map((c) => c.idempotencyKey);
    expect(new Set(keys).size).to.equal(keys.length);
    expect((await store.dossier(failoverId))?.outcome).to.equal(result.outcome);
    return result;
  }

  it('moves traffic step by step to a cell it made, once that has answered copies of what callers ask, and gives it back when the risk clears', async () => {
    await tell('shift');
    await moved(5000);
    await tell('clear');
    const { outcome: ended, reason } = await outcome();
    expect(ended, reason).to.equal('drained');
    expect(await shares()).to.include({ 'shop-a': 5000, 'shop-b': 5000 });
    const idle = (await store.cells('shop')).filter((c) => c.state === 'idle');
    expect(idle.length, 'the synthetic cell rests').to.equal(1);
    const entries = (await store.dossier(failoverId))?.entries ?? [];
    const { how, why } = idle[0]!.rest!;
    expect(entries.map(({ what }) => what)).to.include(`${idle[0]!.name} rests ${how}: ${why}`);
    const warmed = entries.find(({ what }) => what.startsWith('warm'));
    const steps = warmed?.evidence?.steps as { kind: string; text: string; ok: boolean | null }[];
    expect(steps?.map(({ kind, ok }) => [kind, ok])).to.deep.equal([
      ['connections', true],
      ['mirror', true],
    ]);
    const answered = Number(/^(\d+) copies of callers' requests answered/.exec(steps[1]!.text)?.[1]);
    expect(answered, steps[1]!.text).to.be.at.least(20);
  });

  it('goes on where it was after kill -9 of the worker, hears an order that came meanwhile, and takes the idle cell again', async () => {
    episode = randomUUID();
    await tell('shift');
    await moved(1);
    await stack.process('failover-worker').kill();
    const reply = await sendOverride(client, 'shop', 'shop-a', { action: 'abort', by: 'ada', reason: canary });
    expect(reply.accepted).to.equal(true);
    level = null;
    await stack.start('failover-worker');
    const { outcome: ended, reason } = await outcome();
    expect(ended, reason).to.equal('aborted');
    expect(await shares()).to.include({ 'shop-a': 5000, 'shop-b': 5000 });
    const synthetic = (await store.cells('shop')).filter((c) => c.role === 'synthetic');
    expect(synthetic.map((c) => c.state)).to.deep.equal(['idle']);
  });

  it('takes up the share that a terminated run left at its synthetic cell, and gives it back when the risk clears', async () => {
    episode = randomUUID();
    await tell('shift');
    await moved(1);
    await client.workflow.getHandle(failoverId).terminate('test');
    const left = (await store.cells('shop')).filter((c) => c.role === 'synthetic');
    expect(left.map((c) => c.owner)).to.deep.equal([failoverId]);
    await tell('shift');
    await moved(5000);
    await tell('clear');
    const { outcome: ended, reason } = await outcome();
    expect(ended, reason).to.equal('drained');
    expect(await shares()).to.include({ 'shop-a': 5000, 'shop-b': 5000 });
    const dossier = await store.dossier(failoverId);
    expect(dossier?.entries.map((e) => e.what).join()).to.contain('of an earlier failover still carries');
    expect(dossier?.syntheticCell).to.equal(left[0]?.name);
  });

  it('completes at once when the source really dies', async () => {
    episode = randomUUID();
    await tell('shift');
    await moved(1);
    // A dead cell tells nothing: from here on the risk is silent.
    level = null;
    for (const { pid } of (await provider.observe('shop-a')).instances) process.kill(pid!, 'SIGKILL');
    const { outcome: ended, reason } = await outcome();
    expect(ended, reason).to.equal('failed-over');
    const after = await shares();
    expect(after['shop-a'] ?? 0).to.equal(0);
    expect(after['shop-b']).to.equal(5000);
  });

  it('gives its traffic back to a source that was mended, when a person says so', async () => {
    const person = { by: 'ada', reason: 'shop-a was mended' };
    const { settings } = stack;
    await startDeclaredCell(provider, store, 'shop-a', undefined, new CellIdentities(settings.cells.identity!));
    const answer = await giveBack({ client, store, settings }, 'shop', 'shop-a', person);
    expect(answer?.message).to.contain('gives it back in steps');
    const { outcome: ended, reason } = await outcome();
    expect(ended, reason).to.equal('drained');
    expect(await shares()).to.include({ 'shop-a': 5000, 'shop-b': 5000 });
    expect(await giveBack({ client, store, settings }, 'shop', 'shop-a', person), 'nothing is left').to.equal(null);
  });

  it('makes a stand-in for a cell whose death nobody predicted, and that no worker lived to see', async () => {
    await stack.process('failover-worker').kill();
    for (const { pid } of (await provider.observe('shop-b')).instances) process.kill(pid!, 'SIGKILL');
    await stack.start('failover-worker');
    const failover = failoverWorkflowId('shop', 'shop-b');
    await waitUntil(async () => (await store.dossier(failover))?.outcome === 'failed-over', {
      withinMs: 120_000,
      what: 'shop-b has a stand-in that carries its share',
      instead: () => failoverInWords(client, store, failover),
    });
    const dossier = (await store.dossier(failover))!;
    expect(dossier.firstRisk?.model).to.equal('failure-detector');
    expect(dossier.label?.kind).to.equal('missed');
    const after = await shares();
    expect(after['shop-b'] ?? 0).to.equal(0);
    expect(after[dossier.syntheticCell!]).to.equal(5000);
  });

  it('has written the secret of the cells and their private keys nowhere but into their own files', async () => {
    const cells = (await store.cells('shop')).map(({ name }) => name);
    expect(cells.length, 'cells that failovers made, too').to.be.greaterThan(2);
    const keyFiles = [join(secretsDir, 'ca.key'), join(secretsDir, 'identities/edge/edge/tls.key')];
    for (const cell of cells) keyFiles.push(join(secretsDir, `identities/${cell}/${cell}-1/tls.key`));
    const keys = keyFiles.flatMap((file) => readFileSync(file, 'utf8').trim().split('\n').slice(1, -1));
    const found = await findEverywhere([password, ...keys, canary, 'shop-b'], placesOf(stack, client));

    // What stands in the blueprint, in a cell's environment and in an order to a failover is found wherever that goes.
    const canaries = found.get(canary)!;
    for (const place of [
      `history ${failoverId}`,
      ...['table blueprints', 'table dossiers', 'cmdline cell', 'environ cell'],
      'file cells/shop-b/spec.json',
    ])
      expect(canaries).to.include(place);
    expect(found.get('shop-b')).to.include('file understudy/failover-worker.log');
    for (const secret of [password, ...keys]) expect(found.get(secret), 'where a secret was found').to.deep.equal([]);
  });
});
