/** How our own calls to an instance are secured: what we show of ourselves, and whom we take for the instance. */
import type { ConnectionOptions } from 'node:tls';
import { nameText, namesIn, type SubjectName } from './names';

export interface TargetTls {
  /** Authorities of the cells, PEM. */
  ca: string;
  /** What we show of ourselves, PEM. Left out: we come as a stranger. */
  certificate?: string | undefined;
  key?: string | undefined;
  /** Who has to answer: no request is sent to anybody else. Left out: whoever does is taken, as for a look. */
  name?: SubjectName | undefined;
}

export function connectionOptions({ ca, certificate, key, name }: TargetTls): ConnectionOptions {
  return {
    ca,
    ...(certificate !== undefined && { cert: certificate, key }),
    minVersion: 'TLSv1.2',
    ALPNProtocols: ['http/1.1'],
    rejectUnauthorized: name !== undefined,
    // The address that was called says nothing about who a cell is; its name does.
    checkServerIdentity: (_, { subjectaltname }) => {
      if (name === undefined) return undefined;
      const shown = namesIn(subjectaltname ?? '');
      if (shown.includes(nameText(name))) return undefined;
      return new Error(`its certificate is for ${shown.join(', ') || 'no name'}, not for ${nameText(name)}`);
    },
  };
}
