/** A synthetic cell that is less protected than its source in anything is found out, by what is really in force. */
import { expect } from 'chai';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { demandedBy, weakerThanDemanded, weakerThanSource } from '../../cells/protection/compare';
import type { ProtectionFacts } from '../../cells/protection/facts';
import { parseStatus, parseTcp } from '../../cells/protection/proc-files';
import { protectionText, readBackProtection, uidOfUser } from '../../cells/protection/read-back';
import { readProtection } from '../../cells/protection/read-process';
import { blueprintDocument } from '../support/documents';

const facts = (change: Partial<ProtectionFacts> = {}): ProtectionFacts => ({
  instance: 'shop-a-1',
  uid: 1000,
  gid: 1000,
  groups: [1000],
  capabilities: [],
  noNewPrivileges: true,
  seccomp: 'filter',
  limits: { memoryBytes: 64e6, openFiles: 1024 },
  confinedBy: ['net'],
  listens: [{ address: '127.0.0.1', port: 8080 }],
  clearSecrets: [],
  unseen: [],
  ...change,
});

describe('The protection of a synthetic cell', () => {
  it('is as good as its source if nothing is weaker, whatever is stronger', () => {
    expect(weakerThanSource([facts()], [facts()])).to.deep.equal([]);
    const stronger = facts({
      uid: 700_001,
      gid: 700_001,
      groups: [],
      seccomp: 'strict',
      limits: { memoryBytes: 32e6, openFiles: 64, cpus: 1 },
      confinedBy: ['mnt', 'net'],
      listens: [],
    });
    expect(weakerThanSource([stronger], [facts()])).to.deep.equal([]);
  });

  const weaker: [string, Partial<ProtectionFacts>][] = [
    ['user', { uid: 0 }],
    ['group', { gid: 0 }],
    ['groups', { groups: [1000, 27] }],
    ['capabilities', { capabilities: ['CAP_NET_RAW'] }],
    ['no_new_privs', { noNewPrivileges: false }],
    ['seccomp', { seccomp: 'none' }],
    ['limit memoryBytes', { limits: { openFiles: 1024 } }],
    ['limit openFiles', { limits: { memoryBytes: 64e6, openFiles: 4096 } }],
    ['confinement', { confinedBy: [] }],
    ['listening addresses', { listens: [{ address: '0.0.0.0', port: 8080 }] }],
    ['secrets', { clearSecrets: ['environment DB_PASSWORD'] }],
    ['unseen', { unseen: ['environment (EACCES)'] }],
  ];
  for (const [what, change] of weaker)
    it(`is weaker by its ${what}, and that alone is named`, () => {
      const found = weakerThanSource([facts(change)], [facts(), facts()]);
      expect(found.map((one) => one.what)).to.deep.equal([what]);
      expect(weakerThanSource([facts()], [facts(change)])).to.deep.equal([]);
    });

  it('must be as good as the best protected instance of its source', () => {
    expect(weakerThanSource([facts({ seccomp: 'none' })], [facts({ seccomp: 'none' }), facts()])).to.have.length(1);
  });

  it('must be what the blueprint states, also if the source is not', () => {
    const blueprint = blueprintDocument({
      security: { user: 'nobody', capabilities: [], noNewPrivileges: true, seccomp: 'filter' },
      resources: { memoryLimitMib: 64, openFiles: 100 },
    });
    const demanded = demandedBy(blueprint, () => 65_534);
    const root = facts({ uid: 0, capabilities: ['CAP_CHOWN'], noNewPrivileges: false, seccomp: 'none' });
    expect(weakerThanDemanded([root], demanded).map(({ what }) => what)).to.deep.equal([
      'user',
      'capabilities',
      'no_new_privs',
      'seccomp',
      'limit openFiles',
    ]);
    expect(weakerThanDemanded([facts({ uid: 0 })], demandedBy(blueprintDocument(), uidOfUser))).to.deep.equal([]);
  });

  it('is not shown where it cannot be read, unless there is nothing to compare it with', async () => {
    const places = (name: string) => [{ name, address: '127.0.0.1', port: 1 }];
    const reader = { read: async ({ name }: { name: string }) => (name === 'source' ? facts() : 'a cloud runs it') };
    const unread = await readBackProtection({
      blueprint: blueprintDocument(),
      synthetic: places('own'),
      source: places('source'),
      reader,
    });
    expect(protectionText(unread)).to.match(/could not be read \(a cloud runs it\), so nothing shows/);
    const neither = await readBackProtection({
      blueprint: blueprintDocument(),
      synthetic: places('own'),
      source: places('x'),
      reader,
    });
    expect([neither.weaker, neither.comparedWith]).to.deep.equal([[], 'nothing']);
  });

  it('counts what root could win back, and what is mapped into IPv6', () => {
    const status = (noNew: number) =>
      `Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t\nCapEff:\t0\nCapPrm:\t0\nCapAmb:\t0\nCapBnd:\t0000000000002400\nNoNewPrivs:\t${noNew}\nSeccomp:\t2\n`;
    expect(parseStatus(status(0)).capabilities).to.deep.equal(['CAP_NET_BIND_SERVICE', 'CAP_NET_RAW']);
    expect(parseStatus(status(1)).capabilities).to.deep.equal([]);
    const rows = [
      '  0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 0 0 11 1',
      '  1: 0000000000000000FFFF00000100007F:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 12 1',
      '  2: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 13 1',
    ];
    expect(parseTcp(['head', ...rows].join('\n')).map(({ local }) => `${local.address} ${local.port}`)).to.deep.equal([
      '127.0.0.1 8080',
      '127.0.0.1 80',
      '::1 80',
    ]);
  });

  describe('of a real process', () => {
    let child: ChildProcess | undefined;
    afterEach(() => {
      child?.kill('SIGKILL');
      child = undefined;
    });

    it('is read as it is: limits, a listening socket, and a secret in its environment by name only', async function () {
      if (process.platform !== 'linux') this.skip();
      const program = "require('net').createServer().listen(0,'0.0.0.0',()=>console.log('up'))";
      child = spawn('prlimit', ['--nofile=77:77', '--', process.execPath, '-e', program], {
        env: { PATH: process.env['PATH'], DB_PASSWORD: 'hunter2' },
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      await once(child.stdout!, 'data');
      const read = readProtection(child.pid!, 'x-1');
      expect(read.limits.openFiles).to.equal(77);
      expect(read.listens.map(({ address }) => address)).to.deep.equal(['0.0.0.0']);
      expect(read.clearSecrets).to.deep.equal(['environment DB_PASSWORD']);
      expect(read.uid).to.equal(process.getuid?.());
      expect(JSON.stringify(read)).not.to.contain('hunter2');
    });
  });
});
