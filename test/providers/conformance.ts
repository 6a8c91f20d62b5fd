/**
 * What the port of cells/provider.ts promises, as tests that any provider has to pass. What really runs is looked up among
 * the processes of this machine, never asked of the provider.
 */
import { expect } from 'chai';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { RefusedError } from '../../blueprints/records';
import type { BlueprintDocument } from '../../blueprints/schema';
import { request } from '../../cells/http';
import { isLapsed, type CellProvider, type CellSpec, type ObservedCell } from '../../cells/provider';
import { packageRoot } from '../../package-root';
import { cellSpec, processesThatStay, runningProcesses, serverBlueprint, until, untilPhase } from '../support/cells';
import type { KilledCall } from '../support/killed-call';
import { providerOf, type RemadeProvider } from '../support/remade-provider';

/** One installation of the provider, empty at the beginning. */
export interface World {
  provider: RemadeProvider;
  /** What a blueprint of this provider has beside what the test says: its kind, its image. */
  blueprint?: Record<string, unknown>;
  /** What stands for the command's image, where the provider needs one. */
  image?: string;
  /** Everything that the provider keeps beside processes, by name: files, containers, records. Empty once all is gone. */
  remains(): Promise<string[]> | string[];
  /** Something that looks like the provider's and is not. Answers how to see whether it is still there, and to remove it. */
  stranger(): Promise<{ stands(): Promise<boolean>; remove(): Promise<void> }>;
  close(): Promise<void>;
}

const oneInstance = { instances: 1, memoryLimitMib: 64 };

export function conformance(
  title: string,
  open: () => Promise<World>,
  whyNot: () => Promise<string | undefined>,
): void {
  describe(`Provider ${title}`, function () {
    this.timeout(240_000);
    let world: World;
    let marker: string;
    let provider: CellProvider;

    before(async function () {
      const reason = await whyNot();
      if (reason === undefined) return void (world = await open());
      process.stdout.write(`    provider ${title} is not tested here: ${reason}\n`);
      this.skip();
    });
    after(() => world?.close());
    beforeEach(async () => {
      marker = `conformance-${randomBytes(6).toString('hex')}`;
      provider = await another();
    });
    afterEach(async () => {
      for (const { cell } of await provider.list()) await provider.destroy(cell);
      const left = await processesThatStay(marker);
      for (const pid of left) process.kill(pid, 'SIGKILL');
      expect(left, 'processes that nobody led to').to.deep.equal([]);
      expect(await world.remains()).to.deep.equal([]);
    });

    const another = () => providerOf(world.provider);
    const blueprint = (args: string[] = [], change: Record<string, unknown> = {}): BlueprintDocument => {
      const document = serverBlueprint(marker, args, { ...world.blueprint, ...change });
      return world.image === undefined ? document : { ...document, image: { ...document.image, os: world.image } };
    };
    const spec = (change: Partial<CellSpec> = {}) => ({ ...cellSpec('shop-x', blueprint()), ...change });
    const small = (args: string[] = []) => ({ ...cellSpec('shop-x', blueprint(args, { resources: oneInstance })) });
    const running = () => [...runningProcesses(marker).values()].sort();
    const both = () => [`${marker}/shop-x-1`, `${marker}/shop-x-2`];
    const pids = () => [...runningProcesses(marker).keys()].sort();
    const answers = async ({ instances }: ObservedCell) =>
      Promise.all(
        instances.map((instance) =>
          request(instance, '/healthz', { timeoutMs: 2_000 }).then(
            ({ status }) => status,
            () => 'silent',
          ),
        ),
      );
    const refusalOf = (work: Promise<unknown>) =>
      work.then(
        () => undefined,
        (error: Error) => error,
      );
    const nothingRuns = () => until(running, (now) => now.length === 0);
    /** The second of two instances may be slow to say for once that it is well. */
    const untilFirstAloneFailed = () =>
      until(
        () => provider.observe('shop-x'),
        ({ instances: [first, second] }) => first?.phase === 'failed' && second?.phase === 'ready',
      );

    it('says of a cell that it does not know that it is absent, and has nothing to remove or renew', async () => {
      expect((await provider.observe('shop-x')).phase).to.equal('absent');
      await provider.destroy('shop-x');
      expect(await provider.renew('shop-x', 60)).to.equal(false);
      expect(await provider.removeLapsed('shop-x')).to.equal(false);
      expect(await refusalOf(provider.idle('shop-x', 'stopped'))).to.be.instanceOf(RefusedError);
      expect(await provider.list()).to.deep.equal([]);
    });

    it('runs every instance at an address of its own, where it answers once it is called ready', async () => {
      const first = await provider.ensure(spec());
      expect(first.phase).to.be.oneOf(['provisioning', 'ready']);
      const ready = await untilPhase(provider, 'shop-x', 'ready');
      expect(ready.instances.map(({ name }) => name)).to.deep.equal(['shop-x-1', 'shop-x-2']);
      expect(new Set(ready.instances.map(({ address, port }) => `${address}:${port}`)).size).to.equal(2);
      expect(await answers(ready)).to.deep.equal([200, 200]);
      expect(running()).to.deep.equal(both());
      // Asked again, it changes nothing.
      const before = pids();
      const again = await provider.ensure(spec());
      expect(again.instances.map(({ port }) => port)).to.deep.equal(ready.instances.map(({ port }) => port));
      expect(pids()).to.deep.equal(before);
    });

    it('starts each instance once when several workers ensure the cell at the same moment', async () => {
      const workers = await Promise.all([1, 2, 3, 4].map(another));
      await Promise.all(workers.map((worker) => worker.ensure(spec())));
      await untilPhase(provider, 'shop-x', 'ready');
      await until(running, (now) => now.length <= 2);
      expect(running()).to.deep.equal(both());
    });

    it('tells a cell’s labels and lease, and hands it to a new owner without a restart', async () => {
      await provider.ensure(spec({ owner: 'failover/shop/shop-a', leaseS: 600 }));
      const ready = await untilPhase(provider, 'shop-x', 'ready');
      expect([ready.cell, ready.service, ready.owner]).to.deep.equal(['shop-x', 'shop', 'failover/shop/shop-a']);
      expect(Date.parse(ready.expiresAt!))
        .to.be.greaterThan(Date.now() + 300_000)
        .and.most(Date.now() + 600_000);
      expect((await provider.list('failover/shop/shop-a')).map(({ cell }) => cell)).to.deep.equal(['shop-x']);
      expect(await provider.list('somebody else')).to.deep.equal([]);
      const before = pids();
      const heir = await another();
      await heir.ensure(spec({ owner: 'failover/shop/shop-b' }));
      expect((await provider.list('failover/shop/shop-b')).map(({ cell }) => cell)).to.deep.equal(['shop-x']);
      expect(await provider.list('failover/shop/shop-a')).to.deep.equal([]);
      expect(Date.parse((await provider.observe('shop-x')).expiresAt!)).to.be.greaterThan(Date.now() + 300_000);
      expect(pids()).to.deep.equal(before);
    });

    it('refuses to run another blueprint under the name of a cell that runs', async () => {
      await provider.ensure(small());
      expect(await refusalOf(provider.ensure(small(['--cold-ms', '5'])))).to.be.instanceOf(RefusedError);
      await untilPhase(provider, 'shop-x', 'ready');
      expect(running()).to.deep.equal([`${marker}/shop-x-1`]);
    });

    it('tells that an instance was killed, and brings it back while the other runs on', async () => {
      await provider.ensure(spec());
      await untilPhase(provider, 'shop-x', 'ready');
      const [first, second] = ['shop-x-1', 'shop-x-2'].map(
        (name) => [...runningProcesses(marker)].find(([, mark]) => mark.endsWith(`/${name}`))![0],
      );
      process.kill(first!, 'SIGKILL');
      const failed = await untilFirstAloneFailed();
      expect(failed.instances[0]!.reason).to.be.a('string').and.not.equal('');
      await provider.ensure(spec());
      const ready = await untilPhase(provider, 'shop-x', 'ready');
      expect(await answers(ready)).to.deep.equal([200, 200]);
      expect(running()).to.deep.equal(both());
      expect(pids()).to.include(second);
    });

    it('tells what was wrong with an instance that ended at once, and lets go of all of it', async () => {
      await provider.ensure(small(['--exit-at-once']));
      const failed = await untilPhase(provider, 'shop-x', 'failed');
      expect(failed.instances[0]!.reason).to.contain('cannot read the ledger');
      await provider.destroy('shop-x');
      await nothingRuns();
      expect(await world.remains()).to.deep.equal([]);
    });

    it('says that an instance which lives but never gets ready has failed, and why', async () => {
      const never = blueprint(['--never-ready'], { resources: oneInstance, readiness: { timeoutS: 1 } });
      await provider.ensure(cellSpec('shop-x', never));
      // A program that is slow to start has not answered at all by the time it is called failed.
      await until(
        () => provider.observe('shop-x'),
        ({ phase, instances: [first] }) => phase === 'failed' && first!.reason!.includes('503'),
      );
    });

    it('names the command that does not exist, and lets go of all of it', async () => {
      const spelt = blueprint([], { resources: oneInstance });
      spelt.image.command = ['/usr/bin/no-such-program-here', '--port', '{port}'];
      const error = await refusalOf(provider.ensure(cellSpec('shop-x', spelt)));
      if (!error) {
        const failed = await untilPhase(provider, 'shop-x', 'failed');
        expect(failed.instances[0]!.reason).to.contain('no-such-program-here');
      } else expect(error.message).to.contain('no-such-program-here');
      await provider.destroy('shop-x');
      expect(await world.remains()).to.deep.equal([]);
    });

    it('ends a cell as often as it is asked to, and never what is not its own', async () => {
      const stranger = await world.stranger();
      try {
        await provider.ensure(spec());
        await untilPhase(provider, 'shop-x', 'ready');
        await provider.ensure({ ...spec(), cell: 'shop-x-2' });
        await untilPhase(provider, 'shop-x-2', 'ready');
        const workers = await Promise.all([1, 2, 3].map(another));
        const ended = async (worker: CellProvider) => {
          await worker.destroy('shop-x');
          return (await worker.list()).map(({ cell }) => cell);
        };
        expect(await Promise.all(workers.map(ended)), 'told by each, once it has ended it').to.deep.equal(
          workers.map(() => ['shop-x-2']),
        );
        await provider.destroy('shop-x');
        expect((await provider.observe('shop-x')).phase).to.equal('absent');
        expect(running()).to.deep.equal([`${marker}/shop-x-2-1`, `${marker}/shop-x-2-2`]);
        await provider.destroy('shop-x-2');
        await nothingRuns();
        expect(await stranger.stands(), 'what is not its own').to.equal(true);
        expect(await provider.list()).to.deep.equal([]);
      } finally {
        await stranger.remove();
      }
    });

    it('lets a cell lie idle, says so, and has the same processes answer again when it is woken', async () => {
      await provider.ensure(spec());
      const ready = await untilPhase(provider, 'shop-x', 'ready');
      const before = pids();
      await provider.idle('shop-x', 'frozen');
      const idle = await untilPhase(provider, 'shop-x', 'idle');
      expect(await answers(ready)).to.deep.equal(['silent', 'silent']);
      expect((await provider.idle('shop-x', 'frozen')).phase, 'asked again').to.equal('idle');
      expect((await provider.list()).map(({ phase }) => phase)).to.deep.equal(['idle']);
      expect(idle.instances.map(({ port }) => port)).to.deep.equal(ready.instances.map(({ port }) => port));
      const worker = await another();
      await worker.ensure(spec({ owner: 'failover/shop/shop-b' }));
      expect(await answers(await untilPhase(provider, 'shop-x', 'ready'))).to.deep.equal([200, 200]);
      expect(running()).to.deep.equal(both());
      expect(pids()).to.deep.equal(before);
    });

    it('ends the processes of a cell that is to rest stopped, and starts the same cell again when it is woken', async () => {
      const restful = (owner?: string) => cellSpec('shop-x', blueprint(), owner);
      await provider.ensure({ ...restful(), leaseS: 600 });
      const ready = await untilPhase(provider, 'shop-x', 'ready');
      const before = pids();
      await provider.idle('shop-x', 'stopped');
      const idle = await untilPhase(provider, 'shop-x', 'idle');
      expect(running(), 'while it rests').to.deep.equal([]);
      expect((await provider.idle('shop-x', 'stopped')).phase, 'asked again').to.equal('idle');
      expect((await provider.list('tester')).map(({ phase }) => phase)).to.deep.equal(['idle']);
      const addresses = ({ instances }: ObservedCell) =>
        instances.map(({ name, address, port }) => `${name} ${address}:${port}`);
      expect(addresses(idle)).to.deep.equal(addresses(ready));
      expect(idle.expiresAt).to.equal(ready.expiresAt);
      // As when one worker's call is repeated by another that thinks it has died.
      const workers = await Promise.all([1, 2].map(another));
      await Promise.all(workers.map((worker) => worker.ensure(restful('failover/shop/shop-b'))));
      const woken = await untilPhase(provider, 'shop-x', 'ready');
      expect(await answers(woken)).to.deep.equal([200, 200]);
      expect(addresses(woken)).to.deep.equal(addresses(ready));
      expect(woken.owner).to.equal('failover/shop/shop-b');
      await until(running, (now) => now.length <= 2);
      expect(running()).to.deep.equal(both());
      expect(pids().some((pid) => before.includes(pid))).to.equal(false);
      await provider.idle('shop-x', 'stopped');
      await untilPhase(provider, 'shop-x', 'idle');
      await provider.destroy('shop-x');
      expect(await world.remains()).to.deep.equal([]);
    });

    it('tells what was stopped on purpose from what died, before it was laid idle and after it was woken', async () => {
      const restful = cellSpec('shop-x', blueprint());
      const killFirst = () => {
        const [pid] = [...runningProcesses(marker)].find(([, mark]) => mark.endsWith('/shop-x-1'))!;
        process.kill(pid, 'SIGKILL');
      };
      await provider.ensure(restful);
      await untilPhase(provider, 'shop-x', 'ready');
      killFirst();
      await untilFirstAloneFailed();
      const { phase, instances } = await provider.idle('shop-x', 'stopped');
      expect([phase, ...instances.map((one) => one.phase)]).to.deep.equal(['failed', 'failed', 'idle']);
      await provider.ensure(restful);
      await untilPhase(provider, 'shop-x', 'ready');
      await provider.idle('shop-x', 'stopped');
      await untilPhase(provider, 'shop-x', 'idle');
      await provider.ensure(restful);
      await untilPhase(provider, 'shop-x', 'ready');
      killFirst();
      await untilFirstAloneFailed();
    });

    it('ends what stands still of a cell that is to rest stopped after all', async () => {
      await provider.ensure(small());
      await untilPhase(provider, 'shop-x', 'ready');
      await provider.idle('shop-x', 'frozen');
      await untilPhase(provider, 'shop-x', 'idle');
      expect(running()).to.have.length(1);
      await provider.idle('shop-x', 'stopped');
      expect((await untilPhase(provider, 'shop-x', 'idle')).instances).to.have.length(1);
      expect(running()).to.deep.equal([]);
      expect((await provider.idle('shop-x', 'frozen')).phase, 'the other way round').to.equal('idle');
      await provider.ensure(small());
      await untilPhase(provider, 'shop-x', 'ready');
      expect(running()).to.have.length(1);
    });

    it('ends a cell that lies idle', async () => {
      await provider.ensure(small());
      await untilPhase(provider, 'shop-x', 'ready');
      await provider.idle('shop-x', 'frozen');
      await untilPhase(provider, 'shop-x', 'idle');
      await provider.destroy('shop-x');
      await nothingRuns();
      expect((await provider.observe('shop-x')).phase).to.equal('absent');
    });

    it('removes a cell only when its lease has lapsed, and a cell without a lease never', async () => {
      await provider.ensure(small());
      await untilPhase(provider, 'shop-x', 'ready');
      expect(await provider.removeLapsed('shop-x'), 'without a lease').to.equal(false);
      expect(await provider.renew('shop-x', 600)).to.equal(true);
      expect(await provider.removeLapsed('shop-x'), 'with a lease that holds').to.equal(false);
      expect(running()).to.have.length(1);
      await provider.renew('shop-x', 0);
      await until(
        () => provider.list(),
        ([cell]) => cell !== undefined && isLapsed(cell),
      );
      expect(await provider.removeLapsed('shop-x')).to.equal(true);
      await nothingRuns();
      expect(await provider.renew('shop-x', 600), 'it does not come back').to.equal(false);
      expect((await provider.observe('shop-x')).phase).to.equal('absent');
    });

    it('takes a cell up again that comes back after its lease, with a new one', async () => {
      await provider.ensure({ ...small(), leaseS: 0 });
      const before = await untilPhase(provider, 'shop-x', 'ready');
      await until(
        () => provider.observe('shop-x'),
        (observed) => isLapsed(observed),
      );
      await (await another()).ensure({ ...small(), leaseS: 600 });
      const after = await untilPhase(provider, 'shop-x', 'ready');
      expect(isLapsed(after)).to.equal(false);
      expect(after.instances).to.deep.equal(before.instances);
      expect(await provider.removeLapsed('shop-x')).to.equal(false);
    });

    const killed = (call: Omit<KilledCall, 'provider'>) => {
      const program = join(packageRoot, 'dist/test/support/killed-call.js');
      const argument: KilledCall = { provider: world.provider, ...call };
      return spawnSync(process.execPath, [program, JSON.stringify(argument)], { encoding: 'utf8', timeout: 60_000 });
    };

    it('has one process per instance after a worker was killed before or after any step of making the cell', async () => {
      let deaths = 0;
      for (const when of ['before', 'after'] as const) {
        for (let k = 1; ; k += 1) {
          const run = killed({ operation: 'ensure', spec: small(), k, when });
          if (run.status === 0) break;
          expect(run.signal, run.stderr).to.equal('SIGKILL');
          deaths += 1;
          await provider.ensure(small());
          await untilPhase(provider, 'shop-x', 'ready');
          await until(running, (now) => now.length <= 1);
          expect(running(), `killed ${when} step ${k}`).to.deep.equal([`${marker}/shop-x-1`]);
          await provider.destroy('shop-x');
          await nothingRuns();
          expect(await world.remains(), `removed after ${when} step ${k}`).to.deep.equal([]);
        }
        await provider.destroy('shop-x');
      }
      expect(deaths, 'steps that the test can see').to.be.greaterThan(1);
    });

    it('lays a cell to rest, and wakes it, though a worker was killed after any step of it', async () => {
      for (const operation of ['idle', 'ensure'] as const)
        for (let k = 1, isOver = false; !isOver; k += 1) {
          await provider.ensure(small());
          await untilPhase(provider, 'shop-x', 'ready');
          if (operation === 'ensure') await provider.idle('shop-x', 'stopped');
          const run = killed({ operation, spec: small(), k, when: 'after' });
          isOver = run.status === 0;
          if (!isOver) expect(run.signal, run.stderr).to.equal('SIGKILL');
          const when = `${operation} killed after step ${k}`;
          expect((await provider.observe('shop-x')).phase, when).to.be.oneOf(['ready', 'idle', 'provisioning']);
          if (operation === 'idle') {
            await provider.idle('shop-x', 'stopped');
            await untilPhase(provider, 'shop-x', 'idle');
            expect(running(), when).to.deep.equal([]);
          }
          await provider.ensure(small());
          await untilPhase(provider, 'shop-x', 'ready');
          await until(running, (now) => now.length <= 1);
          expect(running(), when).to.deep.equal([`${marker}/shop-x-1`]);
        }
    });

    it('ends what a worker left that was killed before or after any step of removing the cell', async () => {
      for (const when of ['before', 'after'] as const) {
        for (let k = 1; ; k += 1) {
          await provider.ensure(small());
          await untilPhase(provider, 'shop-x', 'ready');
          const run = killed({ operation: 'destroy', spec: small(), k, when });
          const { phase } = await provider.observe('shop-x');
          expect(phase, `killed ${when} step ${k}`).to.be.oneOf(['ready', 'deleting', 'absent']);
          const listed = (await provider.list()).map(({ cell }) => cell);
          expect(listed, `killed ${when} step ${k}`).to.deep.equal(phase === 'absent' ? [] : ['shop-x']);
          // Nobody but the janitor comes by.
          if (phase === 'deleting') expect(await provider.removeLapsed('shop-x')).to.equal(true);
          else await provider.destroy('shop-x');
          await nothingRuns();
          expect(await world.remains(), `after ${when} step ${k}`).to.deep.equal([]);
          if (run.status === 0) break;
          expect(run.signal, run.stderr).to.equal('SIGKILL');
        }
      }
    });
  });
}
