/** A made-up cloud: cells are HTTP servers of this process, made and ended over HTTP by whoever asks. It can fail, hang and lie. */
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Instance } from '../../blueprints/schema';
import { chooseFreePort } from '../../cells/ports';
import type { CellSpec, ObservedCell } from '../../cells/provider';

export interface Lies {
  /** So many of the next calls of `ensure` fail. */
  ensureFails?: number;
  /** `ensure` never answers. */
  hangs?: boolean;
  /** Nothing ever gets ready. */
  neverReady?: boolean;
  /** Says ready, and nothing listens. */
  readyButDead?: boolean;
  /** Makes a second cell nobody asked for, under the same owner. */
  makesTwice?: boolean;
  /** What `observe` answers. */
  nonsense?: unknown;
}

/** Of all clouds of this process: a store that rows share keeps the address of a cell long after its end. */
const givenPorts = new Set<number>();

interface Site {
  name: string;
  owner: string;
  service: string;
  /** Paused: it takes connections and answers nobody. */
  isIdle: boolean;
  instances: { name: string; server: Server; sockets: Set<Socket>; port: number }[];
}

export class Cloud {
  /** Names of cells in the order they were made and ended: a cell that is made twice stands here twice. */
  readonly made: string[] = [];
  readonly ended: string[] = [];
  lies: Lies = {};
  /** Part of the answers of a cell that are errors. */
  readonly errorRatio = new Map<string, number>();
  /** Of cells that fail their warm-up. */
  isCold = false;
  private readonly sites = new Map<string, Site>();
  private readonly control: Server;
  private readonly controlSockets = new Set<Socket>();
  private isClosed = false;

  private constructor() {
    this.control = createServer((req, res) => {
      void this.answer(req).then(
        (body) => res.writeHead(200).end(JSON.stringify(body)),
        (err: Error) => res.writeHead(500).end(JSON.stringify({ error: err.message })),
      );
    });
    this.control.on('connection', (socket) => remember(this.controlSockets, socket));
  }

  static async open(): Promise<Cloud> {
    const cloud = new Cloud();
    await listen(cloud.control);
    return cloud;
  }

  get port(): number {
    return (this.control.address() as AddressInfo).port;
  }

  /** Cells that stand now. */
  get standing(): string[] {
    return [...this.sites.keys()];
  }

  async declare(service: string, cell: string, count = 2): Promise<Instance[]> {
    return instancesOf(await this.make({ cell, service, owner: 'operator', count }));
  }

  /** A cell that somebody left there long ago. */
  async haunt(service: string, cell: string): Promise<void> {
    await this.make({ cell, service, owner: 'failover/of/another-life', count: 1 });
  }

  /** The cell dies: its instances are gone without a word, what was asked of them breaks. */
  kill(cell: string): void {
    for (const { server, sockets } of this.sites.get(cell)?.instances ?? []) {
      server.close();
      for (const socket of sockets) socket.destroy();
    }
  }

  /** The cell dies, and the provider does not know it any more. */
  lose(cell: string): void {
    this.kill(cell);
    this.sites.delete(cell);
  }

  async close(): Promise<void> {
    this.isClosed = true;
    for (const cell of this.standing) this.lose(cell);
    const closed = new Promise((resolve) => this.control.close(resolve));
    for (const socket of this.controlSockets) socket.destroy();
    await closed;
  }

  private async answer(req: IncomingMessage): Promise<unknown> {
    let text = '';
    for await (const chunk of req) text += String(chunk);
    const body = JSON.parse(text) as { spec: CellSpec; cell: string };
    if (req.url === '/ensure') return this.ensure(body.spec);
    if (req.url === '/observe') {
      const lies = this.lies.nonsense !== undefined && !this.isDeclared(body.cell);
      return lies ? this.lies.nonsense : this.observe(body.cell);
    }
    if (req.url === '/idle') {
      const site = this.sites.get(body.cell);
      if (!site) throw new Error(`there is no cell ${body.cell}`);
      site.isIdle = true;
      return this.observe(body.cell);
    }
    if (req.url === '/destroy') {
      if (this.sites.has(body.cell)) this.ended.push(body.cell);
      this.lose(body.cell);
      return {};
    }
    return this.standing.filter((cell) => !this.isDeclared(cell)).map((cell) => this.observe(cell));
  }

  private isDeclared(cell: string): boolean {
    return this.sites.get(cell)?.owner === 'operator';
  }

  private async ensure({ cell, service, owner, blueprint }: CellSpec): Promise<ObservedCell> {
    if (this.lies.hangs) await new Promise(() => undefined);
    if (this.lies.ensureFails) {
      this.lies.ensureFails -= 1;
      throw new Error('the cloud has no room just now');
    }
    const site = this.sites.get(cell);
    if (site) {
      site.owner = owner;
      site.isIdle = false;
    } else {
      await this.make({ cell, service, owner, count: blueprint.resources.instances });
      this.made.push(cell);
      if (this.lies.makesTwice) await this.make({ cell: `${cell}-twin`, service, owner, count: 1 });
      if (this.lies.readyButDead) this.kill(cell);
    }
    return this.observe(cell);
  }

  private observe(cell: string): ObservedCell {
    const site = this.sites.get(cell);
    const observedAt = new Date().toISOString();
    if (!site) return { cell, service: '', owner: '', phase: 'absent', instances: [], observedAt };
    const phase = this.lies.neverReady ? 'provisioning' : site.isIdle ? 'idle' : 'ready';
    const instances = instancesOf(site).map((instance) => ({ ...instance, phase }) as const);
    return { cell, service: site.service, owner: site.owner, phase, instances, observedAt };
  }

  private async make({ cell, service, owner, count }: Omit<CellSpec, 'blueprint'> & { count: number }): Promise<Site> {
    const site: Site = { name: cell, owner, service, isIdle: false, instances: [] };
    this.sites.set(cell, site);
    for (let n = 1; n <= count; n += 1) {
      const sockets = new Set<Socket>();
      const server = createServer((req, res) => {
        if (site.isIdle) return;
        const isBad =
          req.url === '/warm' ? this.isCold : req.url === '/' && Math.random() < (this.errorRatio.get(cell) ?? 0);
        res.writeHead(isBad ? 500 : 200).end(cell);
      });
      server.on('connection', (socket) => remember(sockets, socket));
      const port = await chooseFreePort('127.0.0.1', givenPorts);
      givenPorts.add(port);
      await listen(server, port);
      // Ended while it was being made.
      if (this.isClosed || this.sites.get(cell) !== site) {
        server.close();
        break;
      }
      site.instances.push({ name: `${cell}-${n}`, server, sockets, port });
    }
    return site;
  }
}

function instancesOf({ instances }: Site): Instance[] {
  return instances.map(({ name, port }) => ({ name, address: '127.0.0.1', port }));
}

function remember(sockets: Set<Socket>, socket: Socket): void {
  sockets.add(socket);
  socket.once('close', () => sockets.delete(socket));
}

function listen(server: Server, port = 0): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
}
