/** gRPC credentials over watched TLS files: new handshakes use the newest material, connections that stand go on. */
import { credentials, experimental, ServerCredentials, type ChannelCredentials } from '@grpc/grpc-js';
import { constants } from 'node:crypto';
import type { SecureContextOptions } from 'node:tls';
import type { TlsMaterial, WatchedTls } from './watched-tls';

/** TLS 1.2 is the oldest that is spoken; whoever shows no certificate that our authorities signed is not served. */
export const mutual = { requestCert: true, rejectUnauthorized: true, minVersion: 'TLSv1.2' } as const;

/**
 * No session tickets: whoever resumed by one would be taken at its old word, also after its certificate has expired or
 * its authority is trusted no more; and making two of them is a fifth of what a new proxy costs.
 */
const secureOptions = constants.SSL_OP_NO_TICKET;

/** What a TLS server is given of the material. */
export function secureContext({ certificate, privateKey, ca }: TlsMaterial): SecureContextOptions {
  return { cert: certificate, key: privateKey, ca, minVersion: mutual.minVersion, secureOptions };
}

/**
 * Our own rather than the ones of grpc-js over certificate providers: those drop every new connection while a file is
 * missing or does not fit, and take certificate, key and authorities one after the other.
 */
class WatchedServerCredentials extends ServerCredentials {
  constructor(tls: WatchedTls) {
    super(mutual, secureContext(tls.current));
    tls.onChange((material) => this.updateSecureContextOptions(secureContext(material)));
  }

  override _equals(other: ServerCredentials): boolean {
    return this === other;
  }
}

/** Mutual TLS for a gRPC server; plaintext without files. */
export function serverCredentials(tls: WatchedTls | undefined): ServerCredentials {
  return tls ? new WatchedServerCredentials(tls) : ServerCredentials.createInsecure();
}

/** Mutual TLS for a gRPC client, which reconnects with the newest material; plaintext without files. */
export function channelCredentials(tls: WatchedTls | undefined): ChannelCredentials {
  if (!tls) return credentials.createInsecure();
  const provider = new WatchedProvider(tls);
  return experimental.createCertificateProviderChannelCredentials(provider, provider);
}

class WatchedProvider implements experimental.CertificateProvider {
  private readonly stops = new Map<object, () => void>();

  constructor(private readonly tls: WatchedTls) {}

  addCaCertificateListener(listener: experimental.CaCertificateUpdateListener): void {
    this.add(listener, ({ ca }) => listener({ caCertificate: ca }));
  }

  removeCaCertificateListener(listener: experimental.CaCertificateUpdateListener): void {
    this.remove(listener);
  }

  addIdentityCertificateListener(listener: experimental.IdentityCertificateUpdateListener): void {
    this.add(listener, ({ certificate, privateKey }) => listener({ certificate, privateKey }));
  }

  removeIdentityCertificateListener(listener: experimental.IdentityCertificateUpdateListener): void {
    this.remove(listener);
  }

  private add(listener: object, tell: (material: TlsMaterial) => void): void {
    this.stops.set(listener, this.tls.onChange(tell));
    process.nextTick(() => tell(this.tls.current));
  }

  private remove(listener: object): void {
    this.stops.get(listener)?.();
    this.stops.delete(listener);
  }
}
