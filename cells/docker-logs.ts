/** The last words of a container. */
import type Docker from 'dockerode';

/** What it wrote last, on either stream, in one line. Empty if the engine cannot say. */
export async function lastWords(engine: Docker, id: string, lines = 3): Promise<string> {
  const log = await engine
    .getContainer(id)
    .logs({ stdout: true, stderr: true, tail: lines })
    .catch(() => Buffer.alloc(0));
  return withoutFrames(Buffer.from(log)).trim().split('\n').slice(-lines).join(' | ').slice(-400);
}

/** The engine frames what comes from two streams: 8 bytes before each piece, the last four its length. Exported for tests. */
export function withoutFrames(log: Buffer): string {
  let text = '';
  for (let at = 0; at < log.length;) {
    const isFrame = log.length - at >= 8 && log[at]! <= 2 && log.readUIntBE(at + 1, 3) === 0;
    // A container with a terminal has one stream, unframed.
    if (!isFrame) return text + log.toString('utf8', at);
    const length = log.readUInt32BE(at + 4);
    text += log.toString('utf8', at + 8, at + 8 + length);
    at += 8 + length;
  }
  return text;
}
