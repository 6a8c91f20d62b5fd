/** Who may open a stream, as which node, and how much it may ask: the xDS server asks, `envoy/security` answers. */
/** The stream cannot go on; `code` is a gRPC status. */
export class StreamError extends Error {
  override readonly name = 'StreamError';

  constructor(
    message: string,
    /** Default: INVALID_ARGUMENT. */
    readonly code: number = 3,
  ) {
    super(message);
  }
}

/** What is known of the other end before it has said anything; a grpc-js call has this shape. */
export interface Peer {
  getAuthContext(): { sslPeerCertificate?: { raw?: Buffer; subjectaltname?: string } };
  getPeer(): string;
}

/** One stream that was let in. */
export interface Admission {
  /** As the certificate says; empty on a plaintext port. */
  readonly identity: string;
  /** Asked once, with the first request's node. Throws StreamError if this identity may not be that node. */
  bind(node: { id?: string; cluster?: string }): void;
  /** Asked before each request is taken in: its subscribed names, and how many the stream holds. Throws StreamError. */
  hear(request: { names: number; held: number }): void;
  /** The stream has ended; called once. */
  leave(): void;
}

export interface StreamGate {
  /** A stream begins. Throws StreamError if it may not. */
  admit(peer: Peer, kind: 'discovery' | 'load-reports'): Admission;
}

/** For plaintext on loopback without limits: everybody may be every node. */
export const openGate: StreamGate = {
  admit: () => ({
    identity: '',
    bind: () => undefined,
    hear: () => undefined,
    leave: () => undefined,
  }),
};
