/** Gives a stateful service of the lab what the lab's others have: telemetry of its own and a memory leak on demand. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { HeapLeak } from '../heap-leak';
import { startTelemetry, type TelemetryOptions } from '../service-telemetry';

const mostBytes = 4096;

/**
 * Looks at each request before the service does; true if it has answered it. `POST /admin/leak {"bytesPerSecond"}` sets the
 * leak, 0 stops it and lets go of what had leaked.
 */
export function ailing(options: TelemetryOptions): (req: IncomingMessage, res: ServerResponse) => boolean {
  const telemetry = startTelemetry(options);
  const leak = new HeapLeak();
  return (req, res) => {
    const path = req.url ?? '/';
    if (path === '/admin/leak') {
      void setLeak(leak, req).then(
        () => res.writeHead(200).end(),
        (error: unknown) => res.writeHead(400).end((error as Error).message),
      );
      return true;
    }
    // Only what callers ask for: health checks and orders would hide how it serves them.
    if (!path.startsWith('/append/') && !path.startsWith('/register/')) return false;
    const beganAt = performance.now();
    telemetry.requestBegins();
    res.once('close', () => telemetry.requestEnds(res.statusCode, (performance.now() - beganAt) / 1000));
    return false;
  };
}

async function setLeak(leak: HeapLeak, req: IncomingMessage): Promise<void> {
  let text = '';
  for await (const chunk of req) {
    text += String(chunk);
    if (text.length > mostBytes) throw new Error(`more than ${mostBytes} bytes`);
  }
  const { bytesPerSecond } = JSON.parse(text) as { bytesPerSecond?: unknown };
  if (typeof bytesPerSecond !== 'number' || !(bytesPerSecond >= 0))
    throw new Error('expected {"bytesPerSecond": n >= 0}');
  leak.set({ bytesPerSecond, shape: 'steady', release: bytesPerSecond === 0 });
}
