/**
 * A TCP proxy that makes a network worse on purpose: added delay, stalls as retransmissions cause them, and resets. Its
 * levels may change at any time and hold for what is forwarded from then on.
 */
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

export interface NetworkLevels {
  /** Added to the round trip, half of it in each direction. */
  delayMs: number;
  /** Mean of an exponential extra delay per piece of data. */
  jitterMs: number;
  /** Share of the pieces, 0 to 1, that are lost at first and arrive `stallMs` later. */
  stallShare: number;
  stallMs: number;
  /** Share of the pieces, 0 to 1, at which the connection is reset. */
  resetShare: number;
}

export const perfectNetwork: Readonly<NetworkLevels> = {
  delayMs: 0,
  jitterMs: 0,
  stallShare: 0,
  stallMs: 200,
  resetShare: 0,
};

export interface ForwardedCounts {
  pieces: number;
  stalled: number;
}

/** From here on the sender is made to wait: what is under way is kept in memory. */
const mostBytesUnderWay = 1024 * 1024;

interface Piece {
  dueMs: number;
  data: Buffer | undefined;
}

/** One direction of one connection: pieces leave in their order, each not before it is due. */
class Lane {
  private readonly pieces: Piece[] = [];
  private bytes = 0;
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly from: Socket,
    private readonly to: Socket,
    private readonly proxy: TcpProxy,
  ) {
    from.on('data', (data) => this.take(data));
    from.on('end', () => this.push({ dueMs: performance.now() + proxy.levels.delayMs / 2, data: undefined }));
  }

  stop(): void {
    clearTimeout(this.timer);
  }

  private take(data: Buffer): void {
    const delayMs = this.proxy.delayOfNextPiece();
    if (delayMs === undefined) {
      this.from.resetAndDestroy();
      this.to.resetAndDestroy();
      return;
    }
    if (delayMs === 0 && this.pieces.length === 0) {
      if (!this.to.destroyed) this.to.write(data);
      return;
    }
    this.bytes += data.length;
    if (this.bytes > mostBytesUnderWay) this.from.pause();
    this.push({ dueMs: performance.now() + delayMs, data });
  }

  private push(piece: Piece): void {
    const last = this.pieces.at(-1);
    if (last && last.dueMs > piece.dueMs) piece.dueMs = last.dueMs;
    this.pieces.push(piece);
    if (this.pieces.length === 1) this.waitForFirst();
  }

  private waitForFirst(): void {
    const [first] = this.pieces;
    if (first) this.timer = setTimeout(() => this.forward(), Math.max(0, first.dueMs - performance.now()));
  }

  private forward(): void {
    const now = performance.now();
    for (let first = this.pieces[0]; first && first.dueMs <= now + 0.5; first = this.pieces[0]) {
      this.pieces.shift();
      if (this.to.destroyed) continue;
      if (first.data) {
        this.bytes -= first.data.length;
        this.to.write(first.data);
      } else this.to.end();
    }
    if (this.bytes <= mostBytesUnderWay && this.from.isPaused()) this.from.resume();
    this.waitForFirst();
  }
}

export class TcpProxy {
  levels: NetworkLevels = { ...perfectNetwork };
  private counts: ForwardedCounts = { pieces: 0, stalled: 0 };
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();

  private constructor(
    private target: { host: string; port: number },
    private readonly random: () => number,
  ) {
    this.server = createServer((caller) => this.accept(caller));
  }

  /** Listens on a free port of 127.0.0.1. */
  static async start(target: { host: string; port: number }, random: () => number): Promise<TcpProxy> {
    const proxy = new TcpProxy(target, random);
    await new Promise<void>((resolve, reject) => {
      proxy.server.once('error', reject);
      proxy.server.listen(0, '127.0.0.1', resolve);
    });
    return proxy;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  /** Where connections go from now on; those that exist stay. */
  setTarget(target: { host: string; port: number }): void {
    this.target = target;
  }

  /** What was forwarded since the last call. */
  takeCounts(): ForwardedCounts {
    const { counts } = this;
    this.counts = { pieces: 0, stalled: 0 };
    return counts;
  }

  async stop(): Promise<void> {
    const closed = new Promise((resolve) => this.server.close(resolve));
    for (const socket of this.sockets) socket.destroy();
    await closed;
  }

  /** Milliseconds for which the next piece is held; undefined: the connection is reset instead. */
  delayOfNextPiece(): number | undefined {
    const { delayMs, jitterMs, stallShare, stallMs, resetShare } = this.levels;
    this.counts.pieces++;
    if (resetShare > 0 && this.random() < resetShare) return undefined;
    let total = delayMs / 2;
    if (jitterMs > 0) total -= Math.log(1 - this.random()) * jitterMs;
    if (stallShare > 0 && this.random() < stallShare) {
      this.counts.stalled++;
      total += stallMs * (0.75 + 0.5 * this.random());
    }
    return total;
  }

  private accept(caller: Socket): void {
    const service = connect(this.target);
    for (const socket of [caller, service]) {
      socket.setNoDelay(true);
      socket.allowHalfOpen = true;
      this.sockets.add(socket);
    }
    const lanes = [new Lane(caller, service, this), new Lane(service, caller, this)];
    const end = (): void => {
      for (const lane of lanes) lane.stop();
      for (const socket of [caller, service]) {
        socket.destroy();
        this.sockets.delete(socket);
      }
    };
    // A broken side breaks the other at once, as a reset would travel.
    caller.on('error', end);
    service.on('error', end);
    caller.on('close', end);
    service.on('close', end);
  }
}
