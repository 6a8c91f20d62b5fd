/** Whether an instance answers its readiness path, asked by one request. */
import { request, type Target } from './http';

const timeoutMs = 1_000;

/** Why the instance is not ready; undefined if it is. */
export async function whyNotReady({ address, port }: Target, path: string): Promise<string | undefined> {
  try {
    const { status } = await request({ address, port }, path, { timeoutMs });
    return status < 200 || status > 299 ? `${path} answered ${status}` : undefined;
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    return `${path} on ${address}:${port}: ${message || code}`;
  }
}

/** Whether an instance that is not ready yet may still become so, with the reason. */
export function unready(reason: string, startedAt: Date, timeoutS: number) {
  const ageS = (Date.now() - startedAt.getTime()) / 1000;
  const isLate = ageS > timeoutS;
  const since = isLate ? ` ${Math.round(ageS)} s after its start, more than the ${timeoutS} s allowed` : '';
  return { phase: isLate ? ('failed' as const) : ('provisioning' as const), reason: `not ready${since}: ${reason}` };
}
