/** What bounds a cell's files and calls, with real processes, mounts and a real packet filter. Needs root on Linux. */
import { expect } from 'chai';
import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { BlueprintDocument } from '../../blueprints/schema';
import { request } from '../../cells/http';
import { ProcessProvider, type ProcessProviderOptions } from '../../cells/process-provider';
import { readBackProtection } from '../../cells/protection/read-back';
import type { ObservedCell } from '../../cells/provider';
import { packageRoot } from '../../package-root';
import { cellSpec, processesThatStay, serverBlueprint, until, untilPhase } from '../support/cells';

const isRoot = process.platform === 'linux' && process.getuid?.() === 0;

describe('Bounds of a cell', function () {
  this.timeout(300_000);
  let dir: string;
  let open: string;
  let secret: string;
  let program: string;
  let marker: string;
  let provider: ProcessProvider;
  const servers: Server[] = [];

  before(function () {
    if (!isRoot) this.skip();
  });
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'understudy-bounds-'));
    chmodSync(dir, 0o711);
    // Every user could write the first and read the second, were it for their rights alone.
    open = join(dir, 'open');
    secret = join(dir, 'private');
    for (const folder of [open, secret, join(dir, 'other')]) {
      mkdirSync(folder);
      chmodSync(folder, 0o777);
    }
    writeFileSync(join(secret, 'key'), 'for others');
    program = join(dir, 'server.js');
    copyFileSync(join(packageRoot, 'dist/test/support/curious-server.js'), program);
    marker = `bounds-test-${randomBytes(6).toString('hex')}`;
    provider = providerWith({});
  });
  afterEach(async () => {
    for (const { cell } of await provider.list()) await provider.destroy(cell);
    for (const server of servers.splice(0)) server.close();
    const left = await processesThatStay(marker);
    for (const pid of left) process.kill(pid, 'SIGKILL');
    rmSync(dir, { recursive: true, force: true });
    expect(left, 'processes that no record led to').to.deep.equal([]);
  });

  const providerWith = (options: Partial<ProcessProviderOptions>) =>
    new ProcessProvider({ stateDir: join(dir, 'cells'), graceMs: 2_000, user: 'allocate', ...options });
  const blueprint = (change: Record<string, unknown> = {}): BlueprintDocument =>
    serverBlueprint(marker, [], { resources: { instances: 1, memoryLimitMib: 64 }, ...change }, program);
  const run = async (cell: string, of: BlueprintDocument): Promise<ObservedCell> => {
    await provider.ensure(cellSpec(cell, of));
    return until(
      () => provider.observe(cell),
      ({ phase }) => phase === 'ready',
      180_000,
    );
  };
  /** A source, and a cell that is to stand in for it. */
  const both = (of: BlueprintDocument) => Promise.all([run('shop-a', of), run('shop-a-understudy-1', of)]);
  /** `ok`, or by which error the cell was kept from it. */
  const tries = async ({ instances: [instance] }: ObservedCell, what: string): Promise<string> =>
    (await request(instance!, what, { timeoutMs: 10_000 })).body;
  const readBack = (of: BlueprintDocument, synthetic: ObservedCell, source: ObservedCell) =>
    readBackProtection({ blueprint: of, synthetic: synthetic.instances, source: source.instances });
  const files = () => ({ files: { writable: ['{dir}', open], hidden: [secret] } });

  it('lets a cell write what its blueprint names and nothing else, hides what is hidden, and arms it', async () => {
    const bounded = blueprint({ security: files() });
    // Of the same blueprint, each has another folder of its own.
    const [source, synthetic] = await both(bounded);
    const own = `${join(dir, 'cells', 'shop-a', 'shop-a-1')}/mine`;
    expect(await tries(source, `/write?path=${own}`)).to.equal('ok');
    expect(await tries(source, `/write?path=${open}/x`)).to.equal('ok');
    expect(await tries(source, `/write?path=${dir}/other/x`)).to.equal('EROFS');
    expect(await tries(source, '/write?path=/tmp/understudy-bounds')).to.equal('EROFS');
    expect(await tries(source, `/read?path=${secret}/key`)).to.be.oneOf(['ENOENT', 'EACCES']);
    expect((await readBack(bounded, synthetic, source)).weaker).to.deep.equal([]);
  });

  it('does not arm a cell whose files are less bounded than its source, or than its blueprint says', async () => {
    const bounded = blueprint({ security: files() });
    const source = await run('shop-a', bounded);
    // Made by somebody who did not know of the bounds.
    const loose = await run('shop-a-understudy-1', blueprint());
    expect(await tries(loose, `/write?path=${dir}/other/x`)).to.equal('ok');
    const { weaker } = await readBack(bounded, loose, source);
    expect(weaker.map(({ what, against }) => `${against} ${what}`)).to.include.members([
      'source writable files',
      'source hidden files',
      'blueprint writable files',
      'blueprint hidden files',
    ]);
    expect(weaker.map(({ text }) => text).join('; ')).to.contain(`can see ${secret}, which the blueprint hides`);
  });

  it('refuses bounds that cannot be kept, and says why', async () => {
    const refusal = (of: BlueprintDocument, by = provider) =>
      by.ensure(cellSpec('shop-a', of)).then(
        () => 'made',
        (error: Error) => error.message,
      );
    const nowhere = blueprint({ security: { files: { hidden: [join(dir, 'nowhere')] } } });
    expect(await refusal(nowhere)).to.contain(`security.files.hidden: there is no ${dir}/nowhere`);
    expect(await refusal(blueprint({ security: { ...files(), user: 'root' } }))).to.contain('root could undo that');
    const asRoot = providerWith({ user: undefined, egress: 'enforce' });
    expect(await refusal(blueprint(), asRoot)).to.contain('needs `allocate`');
  });

  it('is not armed with a secret that others can read', async () => {
    const file = join(dir, 'password');
    writeFileSync(file, 'hunter2');
    const keeps = (mode: number) => chmodSync(file, mode);
    const of = blueprint({ security: { secrets: [{ name: 'password', from: `file:${file}` }] } });
    const [source, synthetic] = await both(of);
    keeps(0o644);
    const { weaker } = await readBack(of, synthetic, source);
    expect(weaker.map(({ text }) => text)).to.deep.equal([
      `has secret password (${file}) open to every user of the machine (0644)`,
    ]);
    keeps(0o600);
    expect((await readBack(of, synthetic, source)).weaker).to.deep.equal([]);
  });

  const listen = async (): Promise<number> => {
    const server = createServer((_, response) => response.end('hello'));
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return (server.address() as AddressInfo).port;
  };

  it('is not armed while it is connected to what its egress does not name; of its source that is a note', async () => {
    const [named, other] = [await listen(), await listen()];
    const of = blueprint({ network: { egress: [`127.0.0.1:${named}`] } });
    const [source, synthetic] = await both(of);
    for (const cell of [source, synthetic]) expect(await tries(cell, `/keep?port=${named}`)).to.equal('ok');
    expect((await readBack(of, synthetic, source)).weaker).to.deep.equal([]);
    expect(await tries(source, `/keep?port=${other}`)).to.equal('ok');
    const noted = await readBack(of, synthetic, source);
    expect([noted.weaker, noted.notes]).to.deep.equal([
      [],
      [`the source's shop-a-1 itself is connected to 127.0.0.1:${other}, which egress does not name`],
    ]);
    expect(await tries(synthetic, `/keep?port=${other}`)).to.equal('ok');
    expect((await readBack(of, synthetic, source)).weaker.map(({ text }) => text)).to.deep.equal([
      `is connected to 127.0.0.1:${other}, which egress does not name`,
    ]);
  });

  describe('with egress enforced', () => {
    const rules = () => execFileSync('iptables', ['-w', '5', '-S'], { encoding: 'utf8' });

    before(function () {
      if (spawnSync('iptables', ['-w', '5', '-S', 'OUTPUT']).status !== 0) this.skip();
    });

    it('reaches what its egress names and nothing else, is called as ever, and leaves no rule behind', async () => {
      provider = providerWith({ egress: 'enforce' });
      const [named, other] = [await listen(), await listen()];
      const of = blueprint({ network: { egress: [`localhost:${named}`] } });
      const source = await run('shop-a', of);
      const chain = `cell-${700_000 + source.instances[0]!.port}-`;
      expect(await tries(source, `/call?port=${named}`)).to.equal('ok');
      expect(await tries(source, `/call?port=${other}`)).to.be.oneOf(['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH']);
      await provider.ensure(cellSpec('shop-a', of));
      expect(rules().match(new RegExp(`-j ${chain}`, 'g')), 'however often it is ensured').to.have.length(1);

      // Beside a source that is held, one that is not is weaker, though it calls nobody.
      const free = new ProcessProvider({ stateDir: join(dir, 'free'), graceMs: 2_000, user: 'allocate' });
      try {
        await free.ensure(cellSpec('shop-a-understudy-1', of));
        const loose = await untilPhase(free, 'shop-a-understudy-1', 'ready');
        expect((await readBack(of, loose, source)).weaker.map(({ what }) => what)).to.deep.equal(['egress']);
      } finally {
        await free.destroy('shop-a-understudy-1');
      }
      const synthetic = await run('shop-a-understudy-1', of);
      expect((await readBack(of, synthetic, source)).weaker).to.deep.equal([]);

      await provider.destroy('shop-a');
      await provider.destroy('shop-a-understudy-1');
      expect(rules()).not.to.contain(chain);
    });
  });
});
