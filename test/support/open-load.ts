/** Open-loop load: requests leave at a steady pace, whatever becomes of those before, each on a connection of its own. */
import { get } from 'node:http';

export class OpenLoad {
  sent = 0;
  answered = 0;
  /** When and why, of those that were not answered with 200. */
  readonly failures: string[] = [];
  private readonly timer: NodeJS.Timeout;

  constructor(
    private readonly port: number,
    everyMs: number,
  ) {
    this.timer = setInterval(() => this.send(), everyMs);
  }

  /** Resolves once every request has its answer. */
  async stop(): Promise<void> {
    clearInterval(this.timer);
    while (this.answered + this.failures.length < this.sent) await new Promise((resolve) => setImmediate(resolve));
  }

  private send(): void {
    this.sent += 1;
    const request = get(
      { host: '127.0.0.1', port: this.port, path: '/', agent: false, timeout: 10_000 },
      (response) => {
        let body = '';
        response.on('data', (chunk: Buffer) => (body += chunk.toString()));
        response.on('end', () => {
          if (response.statusCode === 200) this.answered += 1;
          else this.failures.push(`${new Date().toISOString()} ${response.statusCode} ${body}`);
        });
      },
    );
    request.on('timeout', () => request.destroy(new Error('no answer within 10 s')));
    request.on('error', (error) => this.failures.push(`${new Date().toISOString()} ${error.message}`));
  }
}
