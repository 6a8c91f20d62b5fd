/** The port behind which the authority of the cells lies: whoever can sign a certificate for a name. */
import type { SubjectName } from './names';

export interface CertificateWanted {
  /** PKCS#10, PEM. The private key stays with who asks. */
  request: string;
  name: SubjectName;
  lifetimeS: number;
}

export interface CertificateIssuer {
  /** The certificate and what lies between it and a trusted authority, PEM, leaf first. RefusedError: asking again will not help. */
  issue(wanted: CertificateWanted): Promise<string>;
  /** The authorities that its certificates lead to, PEM, as they are now. */
  trusted(): Promise<string>;
}
