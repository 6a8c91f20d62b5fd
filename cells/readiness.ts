/** Whether an instance says that it is ready, asked by one request in the protocol that it speaks. */
import type { BlueprintDocument } from '../blueprints/schema';
import { request, type Target } from './http';
import { grpcHealth, requestHttp2 } from './http2';
import type { OwnTls } from './provider';

const timeoutMs = 1_000;

/** What OpenSSL calls an answer that is no TLS; Node passes it on. */
const spokeNoTls = new Set(['ERR_SSL_WRONG_VERSION_NUMBER', 'ERR_SSL_PACKET_LENGTH_TOO_LONG', 'ERR_SSL_HTTP_REQUEST']);

export type Asked = Pick<BlueprintDocument['readiness'], 'path' | 'protocol'>;

/** Why the instance is not ready; undefined if it is. */
export async function whyNotReady(
  { address, port, tls }: Target,
  { path, protocol }: Asked,
): Promise<string | undefined> {
  const target = { address, port, tls };
  try {
    if (protocol === 'grpc') {
      const health = await grpcHealth(target, '', timeoutMs);
      return health === 'SERVING' ? undefined : `its health check says ${health}`;
    }
    const { status } =
      protocol === 'http/2'
        ? await requestHttp2(target, { ':path': path }, { timeoutMs })
        : await request(target, path, { timeoutMs });
    return status < 200 || status > 299 ? `${path} answered ${status}` : undefined;
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    const words = code !== undefined && spokeNoTls.has(code) ? 'it does not speak TLS, which its identity wants' : '';
    return `${protocol === 'grpc' ? 'health check' : path} on ${address}:${port}: ${words || message || code}`;
  }
}

/**
 * As a provider asks an instance of the cell: over TLS where its blueprint says so, taking whoever answers. Who that is,
 * is read back before the cell is armed.
 */
export async function whyCellNotReady(
  target: Target,
  { name, security, readiness }: BlueprintDocument,
  ownTls: OwnTls | undefined,
): Promise<string | undefined> {
  if (!security.identity) return whyNotReady(target, readiness);
  return ownTls ? whyNotReadyOverTls(target, readiness, ownTls) : noIdentitySettings(name);
}

export async function whyNotReadyOverTls(
  { address, port }: Target,
  asked: Asked,
  ownTls: OwnTls,
): Promise<string | undefined> {
  try {
    return await whyNotReady({ address, port, tls: await ownTls() }, asked);
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
