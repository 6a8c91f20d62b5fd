/** A GET to one peer over kept connections, with a deadline: what the lab's services call each other with. */
import { Agent, get as httpGet } from 'node:http';
import type { Peer } from '../contract';

/** The answer's body; rejects on any status but 200, on a broken connection, and when the deadline has passed. */
export function get(peer: Peer, timeoutMs: number): (path: string) => Promise<string> {
  const agent = new Agent({ keepAlive: true });
  return (path) =>
    new Promise((resolve, reject) => {
      const outgoing = httpGet({ host: peer.host, port: peer.port, path, agent }, (message) => {
        let text = '';
        message.setEncoding('utf8');
        message.on('data', (part: string) => (text += part));
        message.on('error', done);
        message.on('end', () => {
          if (message.statusCode === 200) done(undefined, text);
          else done(new Error(`${peer.host}:${peer.port} answered ${message.statusCode}.`));
        });
      });
      // A timer of its own: the socket's timeout would start over with each byte and each connection attempt.
      const timer = setTimeout(
        () => outgoing.destroy(new Error(`${peer.host}:${peer.port} gave no answer within ${timeoutMs} ms.`)),
        timeoutMs,
      );
      function done(error: Error | undefined, text = ''): void {
        clearTimeout(timer);
        if (error) reject(error);
        else resolve(text);
      }
      outgoing.on('error', done);
    });
}
