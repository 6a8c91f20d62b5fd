/** Clients of a stateful service that never stop asking, and write down what they asked and were told. */
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { request } from '../../cells/http';
import { pick, seededRandom } from '../random';
import type { History, HistoryEntry } from './history';

export interface AskedCell {
  name: string;
  address: string;
  port: number;
}

export interface ClientsOptions {
  seed: number;
  clients: number;
  /** Looked at for each request: cells come and go. */
  cells: () => readonly AskedCell[];
  /** Longest pause of a client between two requests. @default 10 */
  pauseMs?: number;
}

const timeoutMs = 3_000;
const lists = ['orders', 'payments'];
const registers = ['price', 'stock', 'owner'];

type What =
  | Pick<Extract<HistoryEntry, { kind: 'append' }>, 'kind' | 'list' | 'value'>
  | Pick<Extract<HistoryEntry, { kind: 'set' }>, 'kind' | 'register' | 'version' | 'value'>
  | Pick<Extract<HistoryEntry, { kind: 'read-list' }>, 'kind' | 'list' | 'mayBeStale'>
  | Pick<Extract<HistoryEntry, { kind: 'read-register' }>, 'kind' | 'register' | 'mayBeStale'>;

export class Clients {
  readonly history: History = [];
  private running = true;
  private readonly loops: Promise<void>[];
  private readonly agent = new http.Agent({ keepAlive: true });
  private version = 0;

  constructor(private readonly options: ClientsOptions) {
    this.loops = Array.from({ length: options.clients }, (_, client) => this.loop(client));
  }

  acknowledgedWrites(): number {
    return this.history.filter(({ kind, outcome }) => outcome === 'ok' && (kind === 'append' || kind === 'set')).length;
  }

  /** Ends the clients; their history then lacks its last reads. */
  async abandon(): Promise<void> {
    this.running = false;
    await Promise.all(this.loops);
    this.agent.destroy();
  }

  /** Ends the clients, then reads everything once more, current, as the checker needs it. */
  async finish(withinMs: number): Promise<History> {
    this.running = false;
    await Promise.all(this.loops);
    const reads: What[] = [
      ...lists.map((list): What => ({ kind: 'read-list', list, mayBeStale: false })),
      ...registers.map((register): What => ({ kind: 'read-register', register, mayBeStale: false })),
    ];
    const deadline = Date.now() + withinMs;
    for (const read of reads) {
      for (let at = 0; (await this.ask(-1, pick(Math.random, this.options.cells()), read)) !== 'ok'; at++) {
        if (Date.now() > deadline)
          throw new Error(`the service did not answer a last current read within ${withinMs} ms`);
        await sleep(100);
      }
    }
    this.agent.destroy();
    return this.history;
  }

  private async loop(client: number): Promise<void> {
    const random = seededRandom(this.options.seed * 1000 + client);
    for (let n = 0; this.running; n++) {
      const what = this.choose(random, `${client}-${n}`);
      // A caller who does not know whether it was done asks again; the service must not do it twice.
      for (let attempt = 0; attempt < 3 && this.running; attempt++) {
        const outcome = await this.ask(client, pick(random, this.options.cells()), what);
        if (outcome === 'ok' || what.kind.startsWith('read')) break;
        await sleep(20);
      }
      await sleep(random() * (this.options.pauseMs ?? 10));
    }
  }

  private choose(random: () => number, value: string): What {
    const dice = random();
    if (dice < 0.4) return { kind: 'append', list: pick(random, lists), value };
    if (dice < 0.6) {
      const version = ++this.version;
      return { kind: 'set', register: pick(random, registers), version, value: `v${version}` };
    }
    const mayBeStale = dice >= 0.9;
    if (dice < 0.8) return { kind: 'read-list', list: pick(random, lists), mayBeStale };
    return { kind: 'read-register', register: pick(random, registers), mayBeStale };
  }

  private async ask(client: number, cell: AskedCell, what: What): Promise<HistoryEntry['outcome']> {
    const stale = 'mayBeStale' in what && what.mayBeStale ? '?stale=allowed' : '';
    const path = 'list' in what ? `/append/${what.list}` : `/register/${what.register}`;
    const call =
      what.kind === 'append'
        ? { method: 'POST' as const, body: { value: what.value } }
        : what.kind === 'set'
          ? { method: 'PUT' as const, body: { version: what.version, value: what.value } }
          : {};
    const startMs = performance.now();
    const answer = await request(cell, path + stale, { ...call, timeoutMs, agent: this.agent }).catch(() => undefined);
    const outcome = answer?.status === 200 ? 'ok' : answer?.status === 421 ? 'failed' : 'unknown';
    const said = outcome === 'ok' ? (JSON.parse(answer!.body) as Record<string, unknown>) : {};
    const read =
      what.kind === 'read-list' ? { values: [] } : what.kind === 'read-register' ? { version: 0, value: '' } : {};
    const asked = { client, cell: cell.name, startMs, endMs: performance.now(), outcome };
    this.history.push({ ...asked, ...what, ...read, ...said } as HistoryEntry);
    return outcome;
  }
}
