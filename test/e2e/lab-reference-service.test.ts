import { expect } from 'chai';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { packageRoot } from '../../package-root';
import { readProcess } from '../../lab/process-reading';

interface Running {
  child: ChildProcess;
  url: string;
  address: string;
}

describe('Reference service', function () {
  this.timeout(60_000);
  const children: ChildProcess[] = [];

  async function start(flags: string[] = [], heapMib = 64): Promise<Running> {
    const child = spawn(
      process.execPath,
      [
        `--max-old-space-size=${heapMib}`,
        join(packageRoot, 'dist', 'lab', 'reference-service.js'),
        '--port',
        '0',
        ...flags,
      ],
      { stdio: ['ignore', 'pipe', 'ignore'] },
    );
    children.push(child);
    const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
    const address = `127.0.0.1:${(JSON.parse(line) as { port: number }).port}`;
    return { child, address, url: `http://${address}` };
  }

  afterEach(async () => {
    for (const child of children.splice(0)) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    }
  });

  const post = async (url: string, body: unknown): Promise<unknown> =>
    (await fetch(url, { method: 'POST', body: JSON.stringify(body) })).json();
  const timed = async (url: string): Promise<number> => {
    const beganAt = performance.now();
    const answer = await fetch(url);
    await answer.arrayBuffer();
    expect(answer.status).to.equal(200);
    return performance.now() - beganAt;
  };

  it('carries no more than its slots allow: requests beyond wait their turn', async () => {
    const { url } = await start(['--preloaded', '--slots', '2', '--service-ms', '40']);
    const latencies = await Promise.all(Array.from({ length: 10 }, (_, i) => timed(`${url}/items/${i}`)));
    // Ten requests, two at a time, 40 ms each: the last cannot be done before 200 ms.
    expect(Math.max(...latencies)).to.be.at.least(199);
  });

  it('is slow for an item that is not in memory, once', async () => {
    const { url } = await start(['--service-ms', '1', '--cold-ms', '200']);
    expect(await timed(`${url}/items/7`)).to.be.at.least(200);
    expect(await (await fetch(`${url}/healthz`)).json()).to.include({ entries: 1 });
  });

  it('takes over all entries of a peer', async () => {
    const peer = await start(['--preloaded', '--items', '500']);
    const fresh = await start(['--items', '500']);
    expect(await post(`${fresh.url}/admin/preload`, { from: peer.address })).to.deep.equal({ entries: 500 });
    const item = await (await fetch(`${peer.url}/items/42`)).json();
    expect(await (await fetch(`${fresh.url}/items/42`)).json()).to.deep.equal(item);
  });

  it('says so when a peer cannot be reached, and goes on serving', async () => {
    const { url } = await start(['--preloaded']);
    const refused = await fetch(`${url}/admin/preload`, { method: 'POST', body: '{"from":"127.0.0.1:1"}' });
    expect(refused.status).to.equal(502);
    expect((await fetch(`${url}/healthz`)).status).to.equal(200);
  });

  it('dies of a leak by V8 itself, and lives on if the leak stops', async () => {
    const doomed = await start(['--preloaded'], 48);
    const spared = await start(['--preloaded'], 48);
    const order = { bytesPerSecond: 12_000_000, shape: 'steady' };
    await post(`${spared.url}/admin/leak`, { bytesPerSecond: 3_000_000, shape: 'steady' });
    await post(`${spared.url}/admin/leak`, { bytesPerSecond: 0 });
    const ended = once(doomed.child, 'exit');
    await post(`${doomed.url}/admin/leak`, order);
    const [, signal] = (await ended) as [number | null, string | null];
    expect(signal).to.equal('SIGABRT');
    expect((await fetch(`${spared.url}/healthz`)).status).to.equal(200);
  });

  it('finishes what is in flight when told to stop', async () => {
    const { child, url } = await start(['--preloaded', '--service-ms', '300']);
    const answer = timed(`${url}/items/1`);
    await timed(`${url}/healthz`);
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    expect(await answer).to.be.at.least(300);
    expect((await ended)[0]).to.equal(0);
  });

  it('serves as usual while Kafka is away', async () => {
    const { child, url } = await start(['--preloaded', '--kafka', '127.0.0.1:1', '--step-ms', '100']);
    await Promise.all(Array.from({ length: 20 }, (_, i) => timed(`${url}/items/${i}`)));
    expect(child.exitCode).to.equal(null);
    expect(readProcess(child.pid ?? 0)?.residentBytes).to.be.above(10e6);
  });
});
