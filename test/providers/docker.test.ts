/** The docker provider keeps the promises of the port with a real engine, and some of its own. */
import { expect } from 'chai';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { identitySettingsSchema } from '../../blueprints/identity-settings';
import { RefusedError } from '../../blueprints/records';
import { DockerProvider } from '../../cells/docker-provider';
import { CellIdentities } from '../../cells/identity/cell-identities';
import { makeAuthority } from '../../cells/identity/new-authority';
import { startEngine, whyNoEngine, type ContainerEngine } from '../../local/container-engine';
import { packageRoot } from '../../package-root';
import { readBackProtection } from '../../cells/protection/read-back';
import { cellSpec, runningProcesses, serverBlueprint, untilPhase } from '../support/cells';
import { conformance } from './conformance';

/** Set by CI, which sets up an engine: there its absence is a failure. */
const isRequired = process.env['UNDERSTUDY_REQUIRE_ENGINE'] === '1';

async function whyNot(): Promise<string | undefined> {
  const reason = await whyNoEngine();
  if (reason !== undefined && isRequired) throw new Error(`a container engine is required here, and ${reason}`);
  return reason;
}

let engine: ContainerEngine | undefined;
after(() => engine?.close());

async function started(): Promise<ContainerEngine> {
  engine ??= await startEngine([join(packageRoot, 'dist/test/support/cell-server.js')]);
  return engine;
}

async function open() {
  const { socketPath, docker, image, how } = await started();
  process.stdout.write(`    The container engine: ${how}\n`);
  // An engine that runs already may have others' things.
  const names = async () => {
    const containers = await docker.listContainers({ all: true });
    const { Volumes } = await docker.listVolumes();
    return [...containers.flatMap(({ Names }) => Names), ...(Volumes ?? []).map(({ Name }) => Name)];
  };
  const others = await names();
  return {
    provider: { kind: 'docker' as const, options: { socketPath, installation: 'conformance', graceS: 0 } },
    blueprint: { provider: 'docker' },
    image,
    remains: async () => (await names()).filter((name) => !others.includes(name) && !name.includes('stranger')),
    stranger: async () => {
      // Of another Understudy on the same engine, for a cell of the same name.
      const neighbour = new DockerProvider({ socketPath, installation: 'stranger', graceS: 0 });
      const blueprint = serverBlueprint('stranger', [], {
        provider: 'docker',
        resources: { instances: 1, memoryLimitMib: 64 },
      });
      blueprint.image.os = image;
      await neighbour.ensure(cellSpec('shop-x', blueprint));
      await untilPhase(neighbour, 'shop-x', 'ready');
      return {
        stands: async () => (await neighbour.observe('shop-x')).phase === 'ready',
        remove: () => neighbour.destroy('shop-x'),
      };
    },
    close: async () => undefined,
  };
}

conformance('docker', open, whyNot);

describe('Docker provider, by its own means', function () {
  this.timeout(120_000);
  const marker = `own-means-${process.pid}`;
  const one = { instances: 1, memoryLimitMib: 96 };
  let provider: DockerProvider;
  const blueprint = (change: Record<string, unknown> = {}) => {
    const document = serverBlueprint(marker, [], { provider: 'docker', resources: one, ...change });
    document.image.os = engine!.image;
    return document;
  };

  before(async function () {
    if ((await whyNot()) !== undefined) return this.skip();
    const { socketPath } = await started();
    provider = new DockerProvider({ socketPath, installation: 'own-means', graceS: 0 });
  });
  afterEach(async () => {
    for (const { cell } of provider ? await provider.list() : []) await provider.destroy(cell);
    expect([...runningProcesses(marker).values()]).to.deep.equal([]);
  });

  it('has the engine hold an instance to its limits, and reads them back', async () => {
    await provider.ensure(cellSpec('shop-x', blueprint({ resources: { ...one, cpu: 0.5, enforce: true } })));
    const { instances } = await untilPhase(provider, 'shop-x', 'ready');
    expect(instances[0]!.limits).to.deep.equal({
      by: 'engine',
      memoryBytes: 96 * 1024 * 1024,
      cpus: 0.5,
      processes: 512,
    });
  });

  it('runs an instance as its blueprint’s user, without capabilities', async () => {
    await provider.ensure(cellSpec('shop-x', blueprint({ security: { user: '65534' } })));
    const { instances } = await untilPhase(provider, 'shop-x', 'ready');
    const { HostConfig } = await engine!.docker.getContainer('understudy-own-means-shop-x-1').inspect();
    expect(HostConfig.SecurityOpt).to.include('no-new-privileges');
    const status = readFileSync(`/proc/${instances[0]!.pid}/status`, 'utf8');
    expect(status)
      .to.match(/^Uid:\s65534\s/m)
      .and.match(/^CapBnd:\s0+$/m)
      .and.match(/^NoNewPrivs:\s1$/m);
  });

  it('hands an instance the files of its identity, for its user alone, and asks it over TLS', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'understudy-docker-identity-'));
    try {
      const { certificate, key } = await makeAuthority({ name: 'cells', days: 1 });
      const files = { certificateFile: join(dir, 'ca.crt'), privateKeyFile: join(dir, 'ca.key') };
      writeFileSync(files.certificateFile, certificate);
      writeFileSync(files.privateKeyFile, key, { mode: 0o600 });
      const folder = join(dir, 'identities');
      const identities = new CellIdentities(
        identitySettingsSchema.parse({ folder, issuer: { kind: 'local', ...files } }),
      );
      const { ownTls } = identities;
      const { socketPath } = engine!;
      const certified = new DockerProvider({ socketPath, installation: 'own-means', graceS: 0, ownTls });
      const script = `const file = (what) => require('fs').readFileSync(process.env['CELL_TLS_' + what + '_FILE']);
        const tls = { key: file('KEY'), cert: file('CERT'), ca: file('CA'), requestCert: true };
        require('https').createServer(tls, (_, response) => response.end('ok')).listen(Number(process.argv[1]));`;
      const document = blueprint({
        image: { command: [process.execPath, '-e', script, '{port}'] },
        security: { user: '65534', identity: { kind: 'dns', value: '{cell}.shop' } },
        readiness: { timeoutS: 60 },
      });
      const { files: identity } = await identities.provide('shop-x', ['shop-x-1'], document);
      await certified.ensure({ ...cellSpec('shop-x', document), identity });
      await untilPhase(certified, 'shop-x', 'ready');
      const { mode, uid } = statSync(identity['shop-x-1']!.privateKeyFile);
      expect([mode & 0o777, uid]).to.deep.equal([0o600, 65_534]);
      await certified.destroy('shop-x');
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });

  it('refuses an image that the engine does not have, and makes nothing', async () => {
    const document = blueprint();
    document.image.os = 'localhost/no-such-image:1';
    const failure = await provider.ensure(cellSpec('shop-x', document)).then(
      () => undefined,
      (error: Error) => error,
    );
    expect(failure).to.be.instanceOf(RefusedError);
    expect(failure?.message).to.contain('image.os: the engine has no image localhost/no-such-image:1');
    expect(await provider.list()).to.deep.equal([]);
  });

  it('goes by the containers when somebody has pruned the records', async () => {
    await provider.ensure({ ...cellSpec('shop-x', blueprint()), leaseS: 600 });
    await untilPhase(provider, 'shop-x', 'ready');
    const { Volumes } = await engine!.docker.listVolumes();
    for (const { Name } of Volumes.filter(({ Name: name }) => name.startsWith('understudy.own-means.')))
      await engine!.docker.getVolume(Name).remove();
    expect((await provider.list('tester')).map(({ cell, phase }) => [cell, phase])).to.deep.equal([
      ['shop-x', 'ready'],
    ]);
    await provider.ensure(cellSpec('shop-x', blueprint()));
    expect(runningProcesses(marker).size).to.equal(1);
    await provider.destroy('shop-x');
    expect(await provider.list()).to.deep.equal([]);
  });

  it('bounds the files of a container, by what is read back from it', async () => {
    const files = { writable: ['/var/tmp'], hidden: ['/home'] };
    const bounded = blueprint({ security: { files, user: '65534' } });
    await provider.ensure(cellSpec('bounded', bounded));
    await provider.ensure(cellSpec('loose', blueprint({ security: { user: '65534' } })));
    const { instances: synthetic } = await untilPhase(provider, 'bounded', 'ready');
    const { instances: loose } = await untilPhase(provider, 'loose', 'ready');
    const own = await readBackProtection({ blueprint: bounded, synthetic, source: synthetic });
    expect(own.weaker).to.deep.equal([]);
    const weaker = await readBackProtection({ blueprint: bounded, synthetic: loose, source: synthetic });
    expect(weaker.weaker.map(({ what, against }) => `${against} ${what}`)).to.include.members([
      'source writable files',
      'blueprint writable files',
    ]);
    for (const cell of ['bounded', 'loose']) await provider.destroy(cell);
  });
});
