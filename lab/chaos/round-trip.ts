/** Measures the round trip between callers and a cell: a byte that really goes the way that requests go, once per step. */
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { TcpProxy } from './tcp-proxy';

export class RoundTrip {
  private sentAtMs: number | undefined;
  private lastMs: number | undefined;

  private constructor(
    private readonly echo: Server,
    private readonly path: TcpProxy,
    private readonly socket: Socket,
  ) {
    socket.setNoDelay(true);
    socket.on('data', () => {
      if (this.sentAtMs !== undefined) this.lastMs = performance.now() - this.sentAtMs;
      this.sentAtMs = undefined;
    });
    socket.on('error', () => undefined);
  }

  /** Shares the levels of the proxy in front of the cell, whatever they become. */
  static async through(front: TcpProxy, random: () => number): Promise<RoundTrip> {
    const echo = createServer((socket) => socket.pipe(socket).on('error', () => undefined));
    await new Promise<void>((resolve) => echo.listen(0, '127.0.0.1', resolve));
    const path = await TcpProxy.start({ host: '127.0.0.1', port: (echo.address() as AddressInfo).port }, random);
    path.levels = front.levels;
    return new RoundTrip(echo, path, connect(path.port, '127.0.0.1'));
  }

  /** Seconds of the last round trip, or of the one under way if that takes longer; then sends the next. */
  take(): number | undefined {
    const underWayMs = this.sentAtMs === undefined ? undefined : performance.now() - this.sentAtMs;
    const ms = underWayMs === undefined ? this.lastMs : Math.max(underWayMs, this.lastMs ?? 0);
    this.lastMs = undefined;
    if (this.sentAtMs === undefined && this.socket.writable) {
      this.sentAtMs = performance.now();
      this.socket.write('?');
    }
    return ms === undefined ? undefined : ms / 1000;
  }

  async stop(): Promise<void> {
    this.socket.destroy();
    await this.path.stop();
    await new Promise((resolve) => this.echo.close(resolve));
  }
}
