/**
 * As much HTTP/1.1 as the lab's services need, straight on TCP. Up to 64 instances share two cores, and Node's own server
 * takes about twice the CPU per request. One request at a time per connection, bodies by content-length only.
 */
import { createServer, type Server, type Socket } from 'node:net';

/** One request, and the way to answer it. */
export interface Call {
  method: string;
  url: string;
  body: string;
  /** True once the caller has closed the connection. */
  gone: boolean;
  /** Called at most once, when the caller leaves before the answer. */
  onGone: (() => void) | undefined;
  /** Answers as JSON; nothing happens if the caller has gone. */
  answer(status: number, body: unknown): void;
}

const mostHeadBytes = 16 * 1024;
const mostBodyBytes = 64 * 1024;
/** Connections are renewed now and then, so that an instance that cannot accept any more loses its callers. */
const requestsPerConnection = 100;

const reasons: Readonly<Record<number, string>> = {
  200: 'OK',
  400: 'Bad Request',
  404: 'Not Found',
  503: 'Unavailable',
};

export class SmallHttpServer {
  readonly server: Server;
  private readonly connections = new Set<Connection>();
  private draining = false;

  constructor(serve: (call: Call) => void) {
    this.server = createServer({ noDelay: true }, (socket) => {
      const connection = new Connection(socket, serve, () => this.draining);
      this.connections.add(connection);
      socket.on('close', () => this.connections.delete(connection));
    });
  }

  /** Calls back with the port once it listens on 127.0.0.1. */
  listen(port: number, ready: (port: number) => void): void {
    this.server.listen(port, '127.0.0.1', () => {
      const bound = this.server.address();
      ready(bound !== null && typeof bound === 'object' ? bound.port : port);
    });
  }

  /** Accepts nothing more, finishes what is in flight, and calls back when the last connection is closed. */
  drain(drained: () => void): void {
    this.draining = true;
    this.server.close(drained);
    for (const connection of this.connections) connection.endIfIdle();
  }
}

class Connection {
  private received = '';
  private answered = 0;
  private current: Call | undefined;

  constructor(
    private readonly socket: Socket,
    private readonly serve: (call: Call) => void,
    private readonly isDraining: () => boolean,
  ) {
    socket.setEncoding('latin1');
    socket.on('data', (text: string) => {
      this.received += text;
      if (!this.current) this.next();
    });
    // A broken connection is a caller who left; `close` follows.
    socket.on('error', () => undefined);
    socket.on('close', () => {
      const call = this.current;
      if (!call) return;
      call.gone = true;
      call.onGone?.();
    });
  }

  endIfIdle(): void {
    if (!this.current) this.socket.end();
  }

  /** Serves the next request if it has arrived whole. */
  private next(): void {
    const headEnd = this.received.indexOf('\r\n\r\n');
    if (headEnd < 0) {
      if (this.received.length > mostHeadBytes) this.socket.destroy();
      return;
    }
    const head = this.received.slice(0, headEnd);
    const length = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0);
    const bodyAt = headEnd + 4;
    if (length > mostBodyBytes || /\r\ntransfer-encoding:/i.test(head)) {
      this.socket.end('HTTP/1.1 411 Length Required\r\ncontent-length: 0\r\nconnection: close\r\n\r\n');
      return;
    }
    if (this.received.length < bodyAt + length) return;
    const [method = '', url = '/', version] = head.slice(0, head.indexOf('\r\n')).split(' ');
    const body = length > 0 ? Buffer.from(this.received.slice(bodyAt, bodyAt + length), 'latin1').toString('utf8') : '';
    this.received = this.received.slice(bodyAt + length);
    const mayStay = version === 'HTTP/1.1' && !/\r\nconnection: *close/i.test(head);
    const call: Call = {
      method,
      url,
      body,
      gone: false,
      onGone: undefined,
      answer: (status, answer) => this.answer(call, status, answer, mayStay),
    };
    this.current = call;
    this.serve(call);
  }

  private answer(call: Call, status: number, body: unknown, mayStay: boolean): void {
    if (call.gone || this.current !== call) return;
    this.current = undefined;
    const text = JSON.stringify(body ?? {});
    const stays = mayStay && !this.isDraining() && ++this.answered < requestsPerConnection;
    const head =
      `HTTP/1.1 ${status} ${reasons[status] ?? 'Error'}\r\ncontent-type: application/json\r\n` +
      `content-length: ${Buffer.byteLength(text)}\r\n${stays ? '' : 'connection: close\r\n'}\r\n`;
    if (stays) {
      this.socket.write(head + text);
      if (this.received !== '') this.next();
    } else this.socket.end(head + text);
  }
}
