/** The control plane's settings: where it listens, by which certificates, who may do what there, and within which limits. */
import { z } from 'zod';
import { transportSettingsSchema } from './transport-settings';

const tlsSchema = z.strictObject({
  certificateFile: z.string().describe('PEM: our certificate, then its intermediates.'),
  privateKeyFile: z.string().describe('PEM: the key of that certificate.'),
  caFile: z.string().describe('PEM: the authorities whose certificates the other side may show. It must show one.'),
});

const pattern = z.string().min(1).describe('`*` stands for any characters but `/`, `**` for any at all.');
const identity = pattern.describe(
  'SPIFFE URI or DNS name in the certificate. `*` stands for any characters but `/`, `**` for any at all.',
);

const proxyRuleSchema = z.strictObject({
  identity,
  nodes: z
    .array(pattern)
    .min(1)
    .describe('Node ids that this identity may be. `{1}` is what the first `*` of the identity stood for.'),
  clusters: z.array(pattern).min(1).default(['**']).describe('Node clusters that it may be in.'),
});

/** What an automatic caller may do unless it is said otherwise: everything but ending a stop that a person ordered. */
export const automaticMethods = [
  'ApplySplit',
  'AwaitChange',
  'ArmCell',
  'RemoveCell',
  'DrainCell',
  'RenewLease',
  'Stop',
  'GetTraffic',
  'Watch',
];

const principalSchema = z.strictObject({
  identity,
  services: z.array(pattern).min(1).describe('Services whose traffic it may see and change; `**` for all.'),
  methods: z
    .array(pattern)
    .min(1)
    .optional()
    .describe('Methods of the traffic API that it may call. Left out: for a person all, else all but Resume.'),
  kind: z
    .enum(['automatic', 'person'])
    .default('automatic')
    .describe('Only a person may override a fleet-wide stop, or end it.'),
});

const secretSchema = z.strictObject({
  name: z.string().min(1).describe('As the proxy asks for it by SDS.'),
  owners: z.array(z.string().min(1)).min(1).describe('Identities, in full, that alone are given it.'),
  certificateFile: z.string().optional().describe('PEM: certificate and intermediates. Goes with privateKeyFile.'),
  privateKeyFile: z.string().optional().describe('PEM. Read from its file, never stored or logged.'),
  caFile: z.string().optional().describe('PEM: authorities to validate the other side by. A secret of its own kind.'),
});

const limitsSchema = z.strictObject({
  requestBytes: z
    .number()
    .int()
    .min(1024)
    .default(4_194_304)
    .describe('A larger request ends its stream before it is decoded.'),
  namesPerSubscription: z
    .number()
    .int()
    .min(1)
    .default(10_000)
    .describe('Resource names that a stream may ask for, per type.'),
  streamsPerIdentity: z
    .number()
    .int()
    .min(1)
    .default(10_000)
    .describe('Streams at once of one identity; on a plaintext port, of one address.'),
  requestsPerSecond: z.number().min(1).default(500).describe('Requests of one stream, sustained.'),
  requestBurst: z.number().int().min(1).default(20_000).describe('Requests of one stream at once, as after a start.'),
  changesPerClient: z
    .number()
    .int()
    .min(1)
    .default(100)
    .describe(
      'Calls of the traffic API that wait for proxies at once, of one identity; on a plaintext port, of one address.',
    ),
  changesAtOnce: z
    .number()
    .int()
    .min(1)
    .default(400)
    .describe('Calls of the traffic API that wait for proxies at once, of one process.'),
  firstRequestWithinMs: z
    .number()
    .int()
    .min(100)
    .default(15_000)
    .describe('A stream that has said nothing by then is ended.'),
  connectionIdleMs: z
    .number()
    .int()
    .min(1000)
    .default(300_000)
    .describe('A connection without a stream is closed after that.'),
});

const operationsSchema = z.strictObject({
  address: z
    .string()
    .default('127.0.0.1:0')
    .describe('host:port of metrics, health and config dump over HTTP; port 0 takes a free one.'),
  tls: tlsSchema.optional().describe('HTTPS with client certificates.'),
  tokenFile: z
    .string()
    .optional()
    .describe('File with the bearer token that opens `/config_dump` and `/proxies`. Without it only certificates do.'),
  operators: z
    .array(identity)
    .default([])
    .describe('Identities whose certificate opens `/config_dump` and `/proxies`.'),
});

export const controlPlaneSchema = z
  .strictObject({
    xdsAddress: z.string().describe('host:port of ADS and load reporting.'),
    trafficAddress: z.string().describe('host:port of the traffic API.'),
    loadReportIntervalMs: z.number().int().min(100).default(1000),
    acknowledgeTimeoutMs: z.number().int().min(50).default(5000),
    processes: z
      .number()
      .int()
      .min(1)
      .max(64)
      .default(1)
      .describe(
        'Processes that share the ports, each a replica of its own; see docs/control-plane.md for what 2 gained and cost.',
      ),
    transport: transportSettingsSchema.prefault({}),
    allowPlaintext: z
      .boolean()
      .default(false)
      .describe('Allows addresses beyond loopback without TLS: whoever reaches them is believed.'),
    xdsTls: tlsSchema.optional().describe('Mutual TLS towards the proxies; read again when a file changes.'),
    trafficTls: tlsSchema.optional().describe('Mutual TLS of the traffic API; read again when a file changes.'),
    tlsReloadMs: z
      .number()
      .int()
      .min(10)
      .default(2000)
      .describe('How often the files of certificates, keys and secrets are read again.'),
    trafficClientTls: tlsSchema
      .optional()
      .describe('What callers of the traffic API among our own processes show. Default: plaintext.'),
    proxies: z
      .array(proxyRuleSchema)
      .default([])
      .describe('Which certificate may be which node. With xdsTls at least one; nobody else is served.'),
    principals: z
      .array(principalSchema)
      .default([])
      .describe("Who may change which service's traffic. With trafficTls at least one; nobody else is heard."),
    secrets: z.array(secretSchema).default([]).describe('Certificates and keys given out by SDS.'),
    limits: limitsSchema.prefault({}),
    operations: operationsSchema.prefault({}),
  })
  .superRefine((s, ctx) => {
    const complain = (path: (string | number)[], message: string): void =>
      ctx.addIssue({ code: 'custom', path, message });
    const exposed: [path: string[], address: string, tls: unknown][] = [
      [['xdsAddress'], s.xdsAddress, s.xdsTls],
      [['trafficAddress'], s.trafficAddress, s.trafficTls],
      [['operations', 'address'], s.operations.address, s.operations.tls],
    ];
    for (const [path, address, tls] of exposed) {
      if (tls || s.allowPlaintext || isLoopback(address)) continue;
      complain(
        path,
        `${address} is reachable from elsewhere without TLS; give it TLS, a loopback address, or set allowPlaintext: true`,
      );
    }
    if (s.xdsTls && s.proxies.length === 0)
      complain(['proxies'], 'xdsTls is set but no certificate may be any node; say which identity may be which node');
    if (s.trafficTls && s.principals.length === 0)
      complain(['principals'], 'trafficTls is set but nobody may call the traffic API; name at least one principal');
    if (!s.xdsTls && s.secrets.length > 0)
      complain(['secrets'], 'secrets go only to proxies that showed a certificate; set xdsTls');
    s.secrets.forEach((secret, i) => {
      const pair = [secret.certificateFile, secret.privateKeyFile].filter((file) => file !== undefined).length;
      if (pair === 1) complain(['secrets', i], 'certificateFile and privateKeyFile go together');
      if ((pair === 2) === (secret.caFile !== undefined))
        complain(['secrets', i], 'a secret is either a certificate with its key, or a caFile');
      if (s.secrets.findIndex(({ name }) => name === secret.name) !== i)
        complain(['secrets', i, 'name'], `secret ${secret.name} is there twice`);
    });
  });

export type ControlPlaneSettings = z.infer<typeof controlPlaneSchema>;
export type TlsSettings = z.infer<typeof tlsSchema>;
export type ProxyRule = z.infer<typeof proxyRuleSchema>;
export type Principal = z.infer<typeof principalSchema>;
export type SecretSettings = z.infer<typeof secretSchema>;
export type Limits = z.infer<typeof limitsSchema>;
export type OperationsSettings = z.infer<typeof operationsSchema>;

/** Whether nobody on another machine can reach the address, `host:port`. A name other than localhost may be anywhere. */
export function isLoopback(address: string): boolean {
  const host = address.slice(0, address.lastIndexOf(':')).replace(/^\[|\]$/g, '');
  return (
    host === 'localhost' ||
    host === '::1' ||
    /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(host) ||
    address.startsWith('unix:')
  );
}
