/** A synthetic cell that is less protected than its source in anything is found out, by what is really in force. */
import { expect } from 'chai';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isHeld } from '../../cells/egress-rules';
import { demandedBy, statedDemands, weakerThanDemanded, weakerThanSource } from '../../cells/protection/compare';
import type { ProtectionFacts } from '../../cells/protection/facts';
import { isWritable, mountOf, parseMounts, writableFolders } from '../../cells/protection/mounts';
import { parseStatus, parseTcpRow, socketOf } from '../../cells/protection/proc-files';
import { protectionText, readBackProtection, uidOfUser } from '../../cells/protection/read-back';
import { readProtection } from '../../cells/protection/read-process';
import { blueprintDocument } from '../support/documents';

/** All read-only but the instance's own folder and /var/lib/shop; nothing to be seen in /root. */
const bounded = `
30 1 254:0 / / ro,relatime - ext4 /dev/vda rw
31 30 0:21 / /proc rw,relatime - proc proc rw
32 30 0:22 / /dev/shm rw - tmpfs tmpfs rw
33 30 254:0 /srv/cells/shop-a/shop-a-1 /srv/cells/shop-a/shop-a-1 rw,relatime - ext4 /dev/vda rw
34 30 254:0 /var/lib/shop /var/lib/shop rw,relatime - ext4 /dev/vda rw
35 30 0:40 / /root ro,nosuid - tmpfs understudy-hidden ro,size=4k`;
const ofUnderstudy = bounded
  .replaceAll('shop-a-1', 'shop-a-understudy-1-2')
  .replace(/cells\/shop-a\//g, 'cells/shop-a-understudy-1/');
const withMounts = (from: string, to: string) => ({ mounts: parseMounts(bounded.replace(from, to)) });

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
  mounts: parseMounts(bounded),
  reachable: [],
  secretFiles: [{ name: 'db', file: '/etc/shop/db', mode: 0o400, uid: 1000, gid: 1000 }],
  calls: [],
  isEgressHeld: true,
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
    ['writable files', withMounts('/ / ro', '/ / rw')],
    ['hidden files', { mounts: facts().mounts.filter(({ point }) => point !== '/root') }],
    ['secret db', { secretFiles: [{ name: 'db', file: '/etc/shop/db', mode: 0o440, uid: 1000, gid: 1000 }] }],
    ['egress', { isEgressHeld: false }],
    ['unseen', { unseen: ['environment (EACCES)'] }],
  ];
  for (const [what, change] of weaker)
    it(`is weaker by its ${what}, and that alone is named`, () => {
      const found = weakerThanSource([facts(change)], [facts(), facts()]);
      expect(found.map((one) => one.what)).to.deep.equal([what]);
      expect(weakerThanSource([facts()], [facts(change)])).to.deep.equal([]);
    });

  it('may write to its own folders, as its source may to the ones of its own', () => {
    const own = facts({ instance: 'shop-a-understudy-1-2', mounts: parseMounts(ofUnderstudy) });
    expect(weakerThanSource([own], [facts()])).to.deep.equal([]);
    const another = facts({ instance: 'shop-a-understudy-2-1', mounts: parseMounts(ofUnderstudy) });
    expect(weakerThanSource([another], [facts()]).map(({ text }) => text)).to.deep.equal([
      'has /srv/cells/shop-a-understudy-1/shop-a-understudy-1-2 mounted to be written, its source has not',
    ]);
  });

  it('writes where the mount on top lets it, whatever lies below', () => {
    const mounts = parseMounts(
      [
        '1 0 8:1 / / ro - ext4 /dev/sda rw',
        '2 1 8:1 / /data rw - ext4 /dev/sdb rw',
        '3 2 0:5 / /data ro - tmpfs cover rw',
        '4 1 8:1 / /with\\040blank rw - ext4 /dev/sdc rw',
        '5 1 8:1 / /super rw - ext4 /dev/sdd ro,errors=continue',
      ].join('\n'),
    );
    expect(writableFolders(mounts)).to.deep.equal(['/with blank']);
    expect(mountOf(mounts, '/data/x')?.id).to.equal(3);
    expect(isWritable(mounts, '/with blank/x')).to.equal(true);
    expect(isWritable(mounts, '/data2')).to.equal(false);
  });

  it('must have no more files and calls than the blueprint states', () => {
    const blueprint = blueprintDocument({
      network: { egress: ['10.0.0.0/8:5432', 'db.shop:*'] },
      security: {
        files: { writable: ['/var/lib/shop'], hidden: ['/root'] },
        secrets: [{ name: 'db', from: 'file:/etc/shop/db' }],
      },
    });
    const demanded = demandedBy(blueprint, uidOfUser);
    const addressesOf = (host: string) => (host === 'db.shop' ? ['192.0.2.7'] : []);
    const texts = (change: Partial<ProtectionFacts>) =>
      weakerThanDemanded([facts(change)], demanded, addressesOf).map(({ text }) => text);
    const calls = [
      { address: '10.9.8.7', port: 5432 },
      { address: '192.0.2.7', port: 9 },
    ];
    expect(texts({ calls })).to.deep.equal([]);
    expect(texts({ calls: [...calls, { address: '10.9.8.7', port: 22 }] })).to.deep.equal([
      'is connected to 10.9.8.7:22, which egress does not name',
    ]);
    expect(texts({ reachable: ['/root'], capabilities: ['CAP_SYS_ADMIN'] })).to.deep.equal([
      'can see /root, which the blueprint hides',
      'holds CAP_SYS_ADMIN, with which it can undo the bounds of its files',
    ]);
    expect(texts(withMounts('/var/lib/shop rw', '/var/lib rw'))[0]).to.contain('has /var/lib mounted to be written');
    const secret = (mode: number, uid: number, gid: number) =>
      texts({ secretFiles: [{ name: 'db', file: '/etc/shop/db', mode, uid, gid }] });
    expect(secret(0o440, 0, 1000)).to.deep.equal([]);
    expect(secret(0o404, 0, 0)[0]).to.contain('open to every user of the machine (0404)');
    expect(secret(0o440, 0, 27)[0]).to.contain('open to group 27, which is not its own');
    expect(secret(0o400, 33, 0)[0]).to.contain('belongs to user 33');
    expect(statedDemands(demanded)).to.deep.equal(['files', 'secret db', 'egress']);
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
    const root = facts({
      uid: 0,
      capabilities: ['CAP_CHOWN'],
      noNewPrivileges: false,
      seccomp: 'none',
      secretFiles: [],
    });
    expect(weakerThanDemanded([root], demanded).map(({ what }) => what)).to.deep.equal([
      'user',
      'capabilities',
      'no_new_privs',
      'seccomp',
      'limit openFiles',
    ]);
    expect(
      weakerThanDemanded([facts({ uid: 0, secretFiles: [] })], demandedBy(blueprintDocument(), uidOfUser)),
    ).to.deep.equal([]);
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

  it('calls other cells of its service without leave, and nobody else', async () => {
    const loading = facts({ calls: [{ address: '10.0.0.7', port: 18_081 }] });
    const of = {
      blueprint: blueprintDocument({ network: { egress: ['db.shop:5432'] } }),
      synthetic: [{ name: 'shop-a-1', address: '127.0.0.1', port: 8080 }],
      source: [{ name: 'shop-a-1', address: '127.0.0.1', port: 8080 }],
      reader: { read: async () => loading },
    };
    const why = async (peers: { address: string; port: number }[]) =>
      (await readBackProtection({ ...of, peers })).weaker.map(({ text }) => text);
    expect(await why([{ address: '10.0.0.7', port: 18_081 }])).to.deep.equal([]);
    expect(await why([{ address: '10.0.0.7', port: 22 }])).to.deep.equal([
      'is connected to 10.0.0.7:18081, which egress does not name',
    ]);
  });

  it('counts what root could win back, and what is mapped into IPv6', () => {
    const status = (noNew: number) =>
      `Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t\nCapEff:\t0\nCapPrm:\t0\nCapAmb:\t0\nCapBnd:\t0000000000002400\nNoNewPrivs:\t${noNew}\nSeccomp:\t2\n`;
    expect(parseStatus(status(0)).capabilities).to.deep.equal(['CAP_NET_BIND_SERVICE', 'CAP_NET_RAW']);
    expect(parseStatus(status(1)).capabilities).to.deep.equal([]);
    const rows = [
      '  0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0     0        0 11 1',
      '  1: 0000000000000000FFFF00000100007F:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 12 1',
      '  2: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 13 1',
    ];
    const sockets = ['  sl  local_address rem_address   st', ...rows]
      .flatMap((row) => parseTcpRow(row) ?? [])
      .map(socketOf);
    expect(sockets.map(({ local }) => `${local.address} ${local.port}`)).to.deep.equal([
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
      const read = await readProtection(child.pid!, 'x-1');
      expect(read.limits.openFiles).to.equal(77);
      expect(read.listens.map(({ address }) => address)).to.deep.equal(['0.0.0.0']);
      expect(read.clearSecrets).to.deep.equal(['environment DB_PASSWORD']);
      expect(read.uid).to.equal(process.getuid?.());
      expect(JSON.stringify(read)).not.to.contain('hunter2');
    });
  });

  describe('of the packet filter', () => {
    const path = process.env['PATH'] ?? '';
    let folder: string;

    beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'understudy-filter-'))));
    afterEach(() => {
      process.env['PATH'] = path;
      rmSync(folder, { recursive: true });
    });
    /** Stands for the filter's tools, with this as the shell script of both. */
    function filterThat(script: string): void {
      for (const tool of ['iptables', 'ip6tables'])
        writeFileSync(join(folder, tool), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
      process.env['PATH'] = `${folder}:${path}`;
    }
    const jump = '-A OUTPUT -m owner --uid-owner 70001 -m comment --comment "understudy t shop-a r" -j cell-70001-r';
    const rules = (last: string) =>
      `case "$4" in OUTPUT) echo '${jump}';; cell-70001-r) echo '-N cell-70001-r'; echo '-A cell-70001-r -j ${last}';; esac`;

    it('is read without holding anybody up, and one that hangs is given up with a sentence', async () => {
      filterThat('exec sleep 600');
      let turns = 0;
      const timer = setInterval(() => (turns += 1), 10);
      const why = await isHeld(70001, 500).then(String, (error: Error) => error.message);
      clearInterval(timer);
      expect(why).to.match(/^ip6?tables has not answered within 0.5 s$/);
      expect(turns).to.be.greaterThan(1);
    });

    it('holds a user whose chain ends with a refusal, and nobody else', async () => {
      filterThat(rules('REJECT --reject-with icmp-port-unreachable'));
      expect(await isHeld(70001)).to.equal(true);
      expect(await isHeld(70002)).to.equal(false);
      filterThat(rules('RETURN'));
      expect(await isHeld(70001)).to.equal(false);
    });

    it('says that it cannot tell while another program locks it, and that nobody is held where it may not be read', async () => {
      filterThat('echo "Another app is currently holding the xtables lock; still 1s 0us time ahead" >&2; exit 4');
      const why = await isHeld(70001).then(String, (error: Error) => error.message);
      expect(why).to.match(/^ip6?tables: another program keeps the packet filter locked$/);
      filterThat('echo "Permission denied (you must be root)" >&2; exit 4');
      expect(await isHeld(70001)).to.equal(false);
    });
  });
});
