/** Instances of cells that count what reaches them, and callers that count what comes back. */
import { Agent, createServer, get, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Instance } from '../../blueprints/schema';

export class Upstreams {
  /** Requests answered, health checks left out, by instance name. */
  readonly hits = new Map<string, number>();
  private readonly servers = new Map<string, Server>();
  private readonly held = new Map<string, (() => void)[]>();

  /** Starts instances `<cell>-1` and so on, and answers where they are. */
  async start(cell: string, count: number): Promise<Instance[]> {
    const instances: Instance[] = [];
    for (let n = 1; n <= count; n += 1) {
      const name = `${cell}-${n}`;
      const server = createServer((request, response) => {
        if (request.url !== '/healthz') this.hits.set(name, (this.hits.get(name) ?? 0) + 1);
        const isHeld = request.url !== '/healthz' && this.held.get(cell);
        if (isHeld) isHeld.push(() => response.end(name));
        else response.end(name);
      });
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      this.servers.set(name, server);
      instances.push({ name, address: '127.0.0.1', port: (server.address() as AddressInfo).port });
    }
    return instances;
  }

  /** From now on the cell's requests are taken and not answered, until they are let go. */
  hold(cell: string): { waiting(): number; release(): void } {
    const answers: (() => void)[] = [];
    this.held.set(cell, answers);
    return {
      waiting: () => answers.length,
      release: () => {
        this.held.delete(cell);
        for (const answer of answers.splice(0)) answer();
      },
    };
  }

  /** Requests answered by all instances of a cell. */
  ofCell(cell: string): number {
    return [...this.hits].filter(([name]) => name.replace(/-\d+$/, '') === cell).reduce((sum, [, n]) => sum + n, 0);
  }

  /** The instance dies: its connections break and nobody listens any more. */
  kill(name: string): void {
    const server = this.servers.get(name);
    server?.close();
    server?.closeAllConnections();
  }

  stop(): void {
    for (const name of this.servers.keys()) this.kill(name);
  }
}

export interface Answers {
  ok: number;
  failed: number;
  /** Why, in the order in which they failed. */
  failures: string[];
}

/** Sends requests, some at a time, and counts the answers. */
export async function send(
  port: number,
  requests: number,
  { concurrency = 8, headers = {} }: { concurrency?: number; headers?: Record<string, string> } = {},
): Promise<Answers> {
  const agent = new Agent({ keepAlive: true, maxSockets: concurrency });
  const answers: Answers = { ok: 0, failed: 0, failures: [] };
  const one = (): Promise<void> =>
    new Promise((resolve) => {
      const fail = (why: string): void => {
        answers.failed += 1;
        answers.failures.push(why);
        resolve();
      };
      get({ host: '127.0.0.1', port, path: '/', agent, headers, timeout: 5000 }, (response) => {
        let body = '';
        response.on('data', (chunk: Buffer) => (body += chunk.toString()));
        response.on('end', () => {
          if (response.statusCode !== 200) return fail(`${response.statusCode} ${body}`);
          answers.ok += 1;
          resolve();
        });
      }).on('error', (error) => fail(error.message));
    });
  let left = requests;
  await Promise.all(
    Array.from({ length: concurrency }, async () => {
      while (left-- > 0) await one();
    }),
  );
  agent.destroy();
  return answers;
}
