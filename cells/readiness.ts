/** Whether an instance answers its readiness path, asked by one request. */
import type { BlueprintDocument } from '../blueprints/schema';
import { request, type Target } from './http';
import type { OwnTls } from './provider';

const timeoutMs = 1_000;

/** What OpenSSL calls an answer that is no TLS; Node passes it on. */
const spokeNoTls = new Set(['ERR_SSL_WRONG_VERSION_NUMBER', 'ERR_SSL_PACKET_LENGTH_TOO_LONG', 'ERR_SSL_HTTP_REQUEST']);

/** Why the instance is not ready; undefined if it is. */
export async function whyNotReady({ address, port, tls }: Target, path: string): Promise<string | undefined> {
  try {
    const { status } = await request({ address, port, tls }, path, { timeoutMs });
    return status < 200 || status > 299 ? `${path} answered ${status}` : undefined;
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    const words = code !== undefined && spokeNoTls.has(code) ? 'it does not speak TLS, which its identity wants' : '';
    return `${path} on ${address}:${port}: ${words || message || code}`;
  }
}

/**
 * As a provider asks an instance of the cell: over TLS where its blueprint says so, taking whoever answers. Who that is,
 * is read back before the cell is armed.
 */
export async function whyCellNotReady(
  target: Target,
  { name, security, readiness: { path } }: BlueprintDocument,
  ownTls: OwnTls | undefined,
): Promise<string | undefined> {
  if (!security.identity) return whyNotReady(target, path);
  return ownTls ? whyNotReadyOverTls(target, path, ownTls) : noIdentitySettings(name);
}

export async function whyNotReadyOverTls(
  { address, port }: Target,
  path: string,
  ownTls: OwnTls,
): Promise<string | undefined> {
  try {
    return await whyNotReady({ address, port, tls: await ownTls() }, path);
  } catch (error) {
    return `it cannot be asked without a certificate of our own: ${(error as Error).message}`;
  }
}

export function noIdentitySettings(blueprint: string): string {
  return `blueprint ${blueprint}: security.identity: the settings say nothing of cells.identity, so nobody can issue certificates`;
}

/** Whether an instance that is not ready yet may still become so, with the reason. */
export function unready(reason: string, startedAt: Date, timeoutS: number) {
  const ageS = (Date.now() - startedAt.getTime()) / 1000;
  const isLate = ageS > timeoutS;
  const since = isLate ? ` ${Math.round(ageS)} s after its start, more than the ${timeoutS} s allowed` : '';
  return { phase: isLate ? ('failed' as const) : ('provisioning' as const), reason: `not ready${since}: ${reason}` };
}
