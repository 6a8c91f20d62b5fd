/** A line to a TCP server that can be severed without a word, as a network partition does: nothing comes, nothing breaks. */
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

export class Line {
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();
  private severed = false;

  private constructor(private target: { host: string; port: number }) {
    this.server = createServer((caller) => this.accept(caller));
  }

  static async start(target: { host: string; port: number }): Promise<Line> {
    const line = new Line(target);
    await new Promise<void>((resolve) => line.server.listen(0, '127.0.0.1', resolve));
    return line;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  /** From now on nothing gets through, on old connections and new ones; nobody is told. */
  sever(): void {
    this.severed = true;
    for (const socket of this.sockets) socket.pause();
  }

  /** What was severed: old connections are lost; new ones get through. */
  mend(): void {
    if (!this.severed) return;
    this.severed = false;
    this.breakAll();
  }

  /** Connections go there from now on; those that went elsewhere break. */
  turnTo(port: number): void {
    if (port === this.target.port) return;
    this.target = { ...this.target, port };
    this.breakAll();
  }

  async stop(): Promise<void> {
    const closed = new Promise((resolve) => this.server.close(resolve));
    this.breakAll();
    await closed;
  }

  private breakAll(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  private accept(caller: Socket): void {
    this.sockets.add(caller);
    caller.on('error', () => undefined);
    caller.on('close', () => this.sockets.delete(caller));
    if (this.severed) {
      caller.pause();
      return;
    }
    const server = connect(this.target);
    this.sockets.add(server);
    server.on('error', () => caller.destroy());
    server.on('close', () => {
      this.sockets.delete(server);
      caller.destroy();
    });
    caller.on('close', () => server.destroy());
    caller.setNoDelay(true);
    server.setNoDelay(true);
    caller.pipe(server);
    server.pipe(caller);
  }
}
