import { Client, credentials, Server, ServerCredentials } from '@grpc/grpc-js';
import { expect } from 'chai';
import { once } from 'node:events';
import { connect } from 'node:net';
import { listen, type Listening } from '../../envoy/xds/listen';

const plaintext = ServerCredentials.createInsecure();

describe('A port for proxies', () => {
  let server: Server;
  const open: Listening[] = [];
  beforeEach(() => (server = new Server()));
  afterEach(() => {
    for (const { stop } of open.splice(0)) stop();
    server.forceShutdown();
  });

  const listenAt = async (address: string): Promise<number> => {
    const listening = await listen(server, address, plaintext);
    open.push(listening);
    return listening.port;
  };
  const reaches = (target: string): Promise<boolean> => {
    const client = new Client(target, credentials.createInsecure());
    return new Promise((resolve) =>
      client.waitForReady(Date.now() + 10_000, (error) => {
        client.close();
        resolve(error === undefined);
      }),
    );
  };

  it('serves gRPC at an address, and at every address a name has', async () => {
    const byAddress = await listenAt('127.0.0.1:0');
    expect(await reaches(`127.0.0.1:${byAddress}`)).to.equal(true);
    const byName = await listenAt('localhost:0');
    expect(await reaches(`localhost:${byName}`)).to.equal(true);
  });

  it('takes two thousand connections that come at once', async () => {
    const port = await listenAt('127.0.0.1:0');
    const sockets = Array.from({ length: 2000 }, () => connect(port, '127.0.0.1'));
    await Promise.all(
      sockets.map(
        (socket) =>
          new Promise<void>((resolve, reject) => {
            socket.once('error', reject);
            // The server's HTTP/2 settings: it has taken the connection, which the kernel alone could not.
            socket.once('data', () => resolve());
          }),
      ),
    );
    for (const socket of sockets) socket.destroy();
  }).timeout(60_000);

  it('says which address cannot be listened on, and why', async () => {
    const refusal = (address: string): Promise<string> =>
      listen(server, address, plaintext).then(
        () => 'listens',
        (error: Error) => error.message,
      );
    const taken = await listenAt('127.0.0.1:0');
    expect(await refusal(`127.0.0.1:${taken}`)).to.match(/^127\.0\.0\.1:\d+ cannot be listened on: .*EADDRINUSE/);
    expect(await refusal('192.0.2.1:0'), 'an address of nobody here').to.include('EADDRNOTAVAIL');
    expect(await refusal('no port')).to.include('give host:port');
  });

  it('goes on with the connections that stand when it takes no more', async () => {
    const port = await listenAt('127.0.0.1:0');
    const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
    await new Promise<void>((resolve, reject) =>
      client.waitForReady(Date.now() + 10_000, (error) => (error ? reject(error) : resolve())),
    );
    open.pop()!.stop();
    // Nobody has registered a method: the answer comes from the server all the same.
    const code = await new Promise((resolve) =>
      client.makeUnaryRequest(
        '/none',
        () => Buffer.alloc(0),
        (bytes) => bytes,
        null,
        (error) => resolve(error?.code),
      ),
    );
    expect(code).to.equal(12);
    const [refused] = (await once(connect(port, '127.0.0.1'), 'error')) as [NodeJS.ErrnoException];
    expect(refused.code).to.equal('ECONNREFUSED');
    client.close();
  }).timeout(20_000);
});
