import { expect } from 'chai';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { inSlices } from '../../cells/slices';
import { listensOn, processListeningOn, socketsOf } from '../../cells/sockets';

describe('The sockets of processes', function () {
  let server: Server;
  let port: number;
  let stranger: ChildProcess;
  const callers: Socket[] = [];

  before(async function () {
    if (process.platform !== 'linux') this.skip();
    stranger = spawn('sleep', ['60'], { stdio: 'ignore' });
    await once(stranger, 'spawn');
    server = createServer((socket) => callers.push(socket)).listen(0, '127.0.0.1');
    await once(server, 'listening');
    ({ port } = server.address() as AddressInfo);
    const caller = connect(port, '127.0.0.1');
    callers.push(caller);
    await Promise.all([once(caller, 'connect'), once(server, 'connection')]);
  });

  after(() => {
    stranger?.kill('SIGKILL');
    for (const socket of callers) socket.destroy();
    server?.close();
  });

  it('are told with both ends and whether they are called or call', async () => {
    const local = { address: '127.0.0.1', port };
    const sockets = await socketsOf(process.pid);
    const there = sockets.filter((socket) => socket.local.port === port || socket.remote.port === port);
    expect(there.filter(({ state }) => state === 'listening').map((socket) => socket.local)).to.deep.equal([local]);
    const connected = there.filter(({ state }) => state === 'established');
    expect(connected).to.have.length(2);
    expect(connected.map(({ remote }) => remote)).to.deep.include(local);
    expect(await socketsOf(stranger.pid!)).to.deep.equal([]);
  });

  it('lead to the process that listens at an address, and to nobody at another', async () => {
    expect(await processListeningOn('127.0.0.1', port)).to.equal(process.pid);
    expect(await processListeningOn('127.0.0.2', port)).to.equal(undefined);
    expect(await processListeningOn('127.0.0.1', 1)).to.equal(undefined);
  });

  it('tell who does not listen where somebody else does', async () => {
    expect(await listensOn(process.pid, port)).to.equal(true);
    expect(await listensOn(stranger.pid!, port)).to.equal(false);
  });
});

describe('Work in slices', () => {
  it('lets others have their turn, however long it takes', async () => {
    let turns = 0;
    const others = setInterval(() => (turns += 1), 1);
    const breathe = inSlices();
    for (let step = 0; step < 20; step += 1) {
      for (const until = performance.now() + 6; performance.now() < until;);
      await breathe();
    }
    clearInterval(others);
    expect(turns).to.be.at.least(10);
  });
});
