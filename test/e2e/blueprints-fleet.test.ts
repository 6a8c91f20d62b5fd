/** What several control planes share through Postgres: leases on splits, the fleet-wide stop, who lives and holds what. */
import { expect } from 'chai';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { pino } from 'pino';
import { stringify } from 'yaml';
import type { AuditRecord } from '../../blueprints/audit';
import {
  FleetStoppedError,
  LeaseHeldError,
  LeaseLostError,
  RefusedError,
  StaleEpochError,
} from '../../blueprints/records';
import { ConfigurationStore } from '../../blueprints/store';
import { startControlPlane } from '../../envoy/control-plane';
import { waitUntil } from '../../local/wait';
import { packageRoot } from '../../package-root';
import { shopDocuments } from '../support/documents';
import { startPostgres, type TestPostgres } from '../support/postgres';

describe('The store that control planes share', function () {
  this.timeout(60_000);
  let postgres: TestPostgres;
  let store: ConfigurationStore;
  let other: ConfigurationStore;
  let url: string;
  let keys = 0;

  before(async () => {
    postgres = await startPostgres();
  });
  beforeEach(async () => {
    url = await postgres.database();
    store = await ConfigurationStore.connect(url);
    await store.migrate();
    other = await ConfigurationStore.connect(url);
    await store.apply(shopDocuments());
  });
  afterEach(async () => {
    await store.close();
    await other.close();
  });
  after(() => postgres.stop());

  const change = (expectedEpoch: number, a: number) => ({
    service: 'shop',
    expectedEpoch,
    split: [
      { cell: 'shop-a', shareBp: a, coverInstances: 0 },
      { cell: 'shop-b', shareBp: 10_000 - a, coverInstances: 0 },
    ],
    reason: 'test',
    by: 'tester',
    idempotencyKey: `key-${(keys += 1)}`,
  });
  const failureOf = (attempt: Promise<unknown>): Promise<unknown> =>
    attempt.then(
      () => undefined,
      (error: unknown) => error,
    );

  it('makes no automatic change once it is stopped, but a person with override does', async () => {
    const stop = await store.stopFleet('ann', 'odd predictions');
    expect(await other.stopFleet('bob', 'me too')).to.deep.equal(stop);
    expect(await other.fleetStop()).to.deep.include({ by: 'ann', reason: 'odd predictions' });
    const refused = await failureOf(other.changeTraffic(change(1, 6000)));
    expect(refused).to.be.instanceOf(FleetStoppedError);
    expect((refused as Error).message)
      .to.contain('ann')
      .and.contain('odd predictions');
    expect((await other.changeTraffic({ ...change(1, 6000), override: true })).state.epoch).to.equal(2);
    expect(await other.resumeFleet('bob', 'it was the clock')).to.deep.equal(stop);
    expect((await store.changeTraffic(change(2, 7000))).state.epoch).to.equal(3);
  });

  it('is stopped and resumed from the command line by the traffic API, and past it only if that is said', async function () {
    // Four processes one after the other, each of which has the whole command to load.
    this.timeout(180_000);
    const settings = { xdsAddress: '127.0.0.1:0', trafficAddress: '127.0.0.1:0' };
    const writeAudit = (record: AuditRecord): Promise<void> => store.audit.add(record);
    const living = await startControlPlane(store, settings, pino({ level: 'silent' }), { writeAudit });
    const dir = mkdtempSync(join(tmpdir(), 'understudy-stop-'));
    const file = join(dir, 'settings.yaml');
    const nowhere = '127.0.0.1:1';
    const controlPlane = { xdsAddress: nowhere, trafficAddress: `127.0.0.1:${living.trafficPort}` };
    const others = { kafka: { brokers: [nowhere] }, temporal: { address: nowhere }, controlPlane };
    writeFileSync(file, stringify({ ...others, postgres: { url } }));
    const script = join(packageRoot, 'dist', 'cli', 'understudy.js');
    const run = async (...words: string[]): Promise<string> =>
      (await promisify(execFile)(process.execPath, [script, ...words, '--settings', file])).stdout.trim();
    try {
      // Without a control plane's word nothing is written, unless that is asked for.
      const unheard = (await failureOf(run('stop', '--by', 'ann', '--reason', 'odd', '--address', nowhere))) as Error;
      expect(unheard.message).to.contain('--break-glass');
      expect(await store.fleetStop()).to.equal(undefined);
      expect(await run('stop', '--by', 'ann', '--reason', 'odd predictions', '--break-glass')).to.match(
        /^stopped since .* by ann: odd/,
      );
      expect(await failureOf(store.changeTraffic(change(1, 9000)))).to.be.instanceOf(FleetStoppedError);
      const past = ['--address', nowhere, '--break-glass'];
      expect(await run('stop', '--by', 'bob', '--reason', 'me too', ...past)).to.match(
        /^was stopped already since .* by ann/,
      );
      expect(await run('resume', '--by', 'bob', '--reason', 'fine')).to.match(/^resumed; it was stopped .* by ann$/);
      expect(await store.fleetStop()).to.equal(undefined);
      const asked = async () => (await store.audit.list()).filter(({ kind }) => kind === 'request');
      // The control plane writes its rows on its own time.
      await waitUntil(async () => (await asked()).length === 3, {
        withinMs: 10_000,
        what: 'all orders are in the audit',
      });
      const orders = (await asked()).map(({ by, details }) => [details.method, by, details.breakGlass === true]);
      expect(orders).to.have.deep.members([
        ['Resume', 'bob', false],
        ['Stop', 'bob', true],
        ['Stop', 'ann', false],
      ]);
    } finally {
      await living.close();
      rmSync(dir, { recursive: true });
    }
  });

  it('answers a repeated key even while it is stopped, and by whom the change was taken back', async () => {
    const first = change(1, 6000);
    await store.changeTraffic(first);
    const refused = [{ node: 'proxy-1', resource: 'endpoints shop', reason: 'no' }];
    await store.changeTraffic({ ...change(2, 5000), reverts: { epoch: 2, refused } });
    await store.stopFleet('ann', 'test');
    const again = await other.changeTraffic(first);
    expect(again).to.deep.include({ repeated: true });
    expect(again.state.epoch).to.equal(2);
    expect(again.revertedBy).to.deep.include({ refused });
    expect(again.revertedBy?.state.epoch).to.equal(3);
  });

  it('lets only one of many swap an epoch whose lease has run out, and none before', async () => {
    await store.changeTraffic({ ...change(1, 6000), leaseMs: 3_600_000 });
    const early = await failureOf(store.changeTraffic({ ...change(2, 5000), onExpiredLease: true }));
    expect(early).to.be.instanceOf(RefusedError);
    await store.changeTraffic({ ...change(2, 6000), leaseMs: 1 });
    await waitUntil(async () => (await other.expiredLeases()).length === 1, { withinMs: 5000, what: 'it has run out' });
    const returns = await Promise.all(
      [store, other, store, other].map((s) => failureOf(s.changeTraffic({ ...change(3, 5000), onExpiredLease: true }))),
    );
    expect(returns.filter((failure) => failure === undefined)).to.have.length(1);
    expect(returns.filter((failure) => failure instanceof StaleEpochError)).to.have.length(3);
    expect((await store.traffic('shop'))!.epoch).to.equal(4);
    expect(await store.expiredLeases()).to.deep.equal([]);
  });

  it('renews a lease for its holder only, and keeps it on the split until somebody says that it ends', async () => {
    await store.changeTraffic({ ...change(1, 6000), leaseMs: 1 });
    await store.changeTraffic({ ...change(2, 6000), leaseMs: 60_000 });
    expect((await other.renewLease('shop', 'tester')).remainingMs).to.be.within(1, 60_000);
    expect(await failureOf(other.renewLease('shop', 'somebody'))).to.be.instanceOf(LeaseLostError);
    await store.changeTraffic({ ...change(3, 5000), reverts: { epoch: 3, refused: [] } });
    expect(await store.splitLease('shop')).to.deep.include({ epoch: 4, holder: 'tester' });
    const byAnother = { ...change(4, 7000), by: 'another' };
    expect((await store.changeTraffic(byAnother)).lease).to.deep.include({ epoch: 5, holder: 'tester' });
    const over = await failureOf(store.changeTraffic({ ...change(5, 6000), by: 'another', leaseMs: 60_000 }));
    expect(over).to.be.instanceOf(LeaseHeldError);
    expect((over as Error).message).to.contain('leased to tester');
    expect((await store.traffic('shop'))!.epoch).to.equal(5);
    expect((await other.renewLease('shop', 'tester')).epoch).to.equal(5);
    await store.changeTraffic({ ...change(5, 6000), releaseLease: true });
    expect(await failureOf(other.renewLease('shop', 'tester'))).to.be.instanceOf(LeaseLostError);
  });

  it('tells the others what the proxies of a replica hold, and forgets it when it leaves', async () => {
    const told: (string | null)[] = [];
    const stop = other.onHoldings((service) => told.push(service));
    await waitUntil(() => told.includes(null), { withinMs: 5000, what: 'the feed stands' });
    expect((await store.replicas.beat('one', ['proxy-1'])).map((r) => r.id)).to.deep.equal(['one']);
    const holding = { replica: 'one', service: 'shop', epoch: 1, refused: [], pending: [] };
    await store.replicas.hold({ ...holding, acknowledged: ['proxy-1'] });
    await waitUntil(() => told.includes('shop'), { withinMs: 5000, what: 'the other is told' });
    expect(await other.replicas.holdings('shop')).to.deep.equal([{ ...holding, acknowledged: ['proxy-1'] }]);
    await store.replicas.reportLoads('one', [{ service: 'shop', loads: { a: 1 } }]);
    expect((await other.replicas.loads('shop'))[0]).to.deep.include({ replica: 'one', loads: { a: 1 } });
    await store.replicas.beat('one');
    expect((await other.replicas.beat('two', []))[0]).to.deep.include({ id: 'one', proxies: ['proxy-1'] });
    await store.replicas.leave('one');
    expect((await other.replicas.list()).map((r) => r.id)).to.deep.equal(['two']);
    expect(await other.replicas.holdings('shop')).to.deep.equal([]);
    stop();
  });
});
