import { expect } from 'chai';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { TcpProxy } from '../../lab/chaos/tcp-proxy';
import { seededRandom } from '../../lab/random';

describe('The TCP proxy of the chaos lab', () => {
  let echo: Server;
  let proxy: TcpProxy;
  const sockets: Socket[] = [];

  beforeEach(async () => {
    echo = createServer((socket) => socket.on('error', () => undefined).pipe(socket));
    echo.listen(0, '127.0.0.1');
    await once(echo, 'listening');
    proxy = await TcpProxy.start({ host: '127.0.0.1', port: (echo.address() as AddressInfo).port }, seededRandom(1));
  });

  afterEach(async () => {
    for (const socket of sockets.splice(0)) socket.destroy();
    await proxy.stop();
    echo.close();
  });

  function caller(): Socket {
    const socket = connect(proxy.port, '127.0.0.1');
    sockets.push(socket);
    return socket;
  }

  async function roundTripMs(socket: Socket, text: string): Promise<number> {
    const began = performance.now();
    socket.write(text);
    let back = '';
    while (back.length < text.length) back += String((await once(socket, 'data'))[0]);
    expect(back).to.equal(text);
    return performance.now() - began;
  }

  it('forwards both ways without a change', async () => {
    const socket = caller();
    await roundTripMs(socket, 'x'.repeat(300_000));
    const ended = once(socket, 'close');
    socket.resume().end();
    await ended;
  });

  it('adds the delay that it is told, on connections that exist, too', async () => {
    const socket = caller();
    await roundTripMs(socket, 'first');
    proxy.levels.delayMs = 120;
    expect(await roundTripMs(socket, 'second')).to.be.at.least(119);
    expect(await roundTripMs(caller(), 'third')).to.be.at.least(119);
  });

  it('keeps the order of what it delays by different times', async () => {
    Object.assign(proxy.levels, { delayMs: 4, jitterMs: 10 });
    const socket = caller();
    await once(socket, 'connect');
    const sent = Array.from({ length: 40 }, (_, i) => `${i};`);
    let back = '';
    socket.on('data', (chunk) => (back += String(chunk)));
    for (const piece of sent) {
      socket.write(piece);
      await new Promise((resolve) => setImmediate(resolve));
    }
    while (back.length < sent.join('').length) await once(socket, 'data');
    expect(back).to.equal(sent.join(''));
  });

  it('stalls lost pieces for about as long as a retransmission takes, and counts them', async () => {
    proxy.levels.stallShare = 1;
    expect(await roundTripMs(caller(), 'lost')).to.be.at.least(2 * 0.75 * 200 - 2);
    expect(proxy.takeCounts()).to.deep.equal({ pieces: 2, stalled: 2 });
    expect(proxy.takeCounts()).to.deep.equal({ pieces: 0, stalled: 0 });
  });

  it('resets connections', async () => {
    proxy.levels.resetShare = 1;
    const socket = caller();
    socket.write('anything');
    const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException];
    expect(error.code).to.equal('ECONNRESET');
  });

  it('closes callers when nobody listens behind it', async () => {
    proxy.setTarget({ host: '127.0.0.1', port: 1 });
    const socket = caller();
    socket.on('error', () => undefined);
    await once(socket, 'close');
  });
});
