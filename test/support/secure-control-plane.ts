/** A control plane over mutual TLS, made anew for each test: its authority, those who connect to it, and what it logs. */
import { credentials } from '@grpc/grpc-js';
import { expect } from 'chai';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { connect as tlsConnect, type PeerCertificate, type TLSSocket } from 'node:tls';
import { pino, type Logger } from 'pino';
import type { z } from 'zod';
import type { AuditRecord } from '../../blueprints/audit';
import type { controlPlaneSchema, TlsSettings } from '../../blueprints/control-plane-settings';
import { startControlPlane, type ControlPlane } from '../../envoy/control-plane';
import { TrafficClient } from '../../envoy/traffic-client';
import { waitUntil } from '../../local/wait';
import { TestAuthority, writeTls, type Pem } from './certificates';
import { serviceDocument } from './documents';
import { cellRecord, MemoryTrafficStore } from './memory-traffic-store';
import { XdsClient } from './xds-client';

export type Settings = z.input<typeof controlPlaneSchema>;

export const spiffe = (path: string): string => `spiffe://shop.example/${path}`;
const instance = (name: string, port: number) => ({ name, address: '127.0.0.1', port });

/** Stems of the files of its certificates. */
export const files = { xds: 'xds', traffic: 'traffic' };

export class SecureControlPlane {
  readonly dir = mkdtempSync(join(tmpdir(), 'understudy-security-'));
  readonly authority = new TestAuthority();
  readonly server = this.authority.issue({ dns: ['localhost'], ips: ['127.0.0.1'] });
  readonly store = new MemoryTrafficStore();
  readonly audit: AuditRecord[] = [];
  /** Closed with it. */
  readonly opened: { close(): void }[] = [];
  /** All that it has logged. */
  logged = '';
  readonly log: Logger = pino(
    { level: 'trace' },
    new Writable({ write: (chunk: Buffer, _encoding, done) => ((this.logged += chunk.toString()), done()) }),
  );
  controlPlane!: ControlPlane;

  constructor() {
    this.store.add(serviceDocument(), [
      cellRecord('shop-a', [instance('shop-a-1', 1)]),
      cellRecord('shop-b', [instance('shop-b-1', 2)]),
    ]);
  }

  async start(change: Partial<Settings> = {}): Promise<void> {
    const { server, authority } = this;
    this.controlPlane = await startControlPlane(
      this.store,
      {
        xdsAddress: '127.0.0.1:0',
        trafficAddress: '127.0.0.1:0',
        acknowledgeTimeoutMs: 1000,
        xdsTls: this.write(files.xds, server, authority.certificate),
        trafficTls: this.write(files.traffic, server, authority.certificate),
        tlsReloadMs: 20,
        proxies: [
          { identity: spiffe('envoy/*'), nodes: ['{1}', '{1}-standby'] },
          { identity: 'edge.shop.example', nodes: ['edge-*'], clusters: ['edge'] },
        ],
        principals: [
          { identity: spiffe('understudy/worker'), services: ['shop'] },
          { identity: spiffe('people/*'), services: ['**'], kind: 'person' },
          { identity: spiffe('dashboard'), services: ['**'], methods: ['Get*'] },
        ],
        ...change,
      },
      this.log,
      { writeAudit: async (record) => void this.audit.push(record) },
    );
  }

  async stop(): Promise<void> {
    for (const one of this.opened.reverse()) one.close();
    await this.controlPlane?.close().catch(() => undefined);
    rmSync(this.dir, { recursive: true, force: true });
  }

  readonly write = (stem: string, pem: Pem, ca: string): TlsSettings => writeTls(this.dir, stem, pem, ca);

  readonly client = (pem: Pem, node: string, ca?: string): XdsClient => {
    const made = new XdsClient(this.controlPlane.xdsPort, 'delta', node, this.channel(pem, ca));
    this.opened.push(made);
    return made;
  };

  readonly envoy = (name: string): Pem => this.authority.issue({ uris: [spiffe(`envoy/${name}`)] });

  readonly traffic = (pem: Pem): TrafficClient => {
    const made = new TrafficClient(`127.0.0.1:${this.controlPlane.trafficPort}`, this.channel(pem));
    this.opened.push(made);
    return made;
  };

  /** What a plain TLS client sees of the port. */
  readonly handshake = (pem: Pem | undefined, ca: string, options: object = {}): Promise<PeerCertificate> =>
    new Promise((resolve, reject) => {
      const socket: TLSSocket = tlsConnect({
        host: '127.0.0.1',
        port: this.controlPlane.xdsPort,
        ca,
        ALPNProtocols: ['h2'],
        ...(pem && { cert: pem.certificate, key: pem.key }),
        ...options,
      });
      socket.on('error', reject);
      // With TLS 1.3 the server's verdict on the client's certificate comes after the handshake: its first words do.
      socket.once('data', () => {
        resolve(socket.getPeerCertificate());
        socket.destroy();
      });
      socket.on('close', () => reject(new Error('closed')));
    });

  private channel({ certificate, key }: Pem, ca = this.authority.certificate) {
    return credentials.createSsl(Buffer.from(ca), Buffer.from(key), Buffer.from(certificate));
  }
}

export async function ending(made: XdsClient): Promise<{ code?: number; details?: string }> {
  await waitUntil(() => made.ended !== undefined, { withinMs: 10_000, what: 'the stream is ended' });
  return made.ended as { code?: number; details?: string };
}

export async function rejects(attempt: Promise<unknown>): Promise<Error> {
  return attempt.then(
    () => expect.fail('this was to be refused'),
    (error: Error) => error,
  );
}
