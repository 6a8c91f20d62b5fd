/** Settings of the identities of cells: who issues their certificates, and for how long. */
import { z } from 'zod';

const issuerSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('local'),
    certificateFile: z
      .string()
      .min(1)
      .describe("The authority's certificate, PEM, and after it what lies between it and its root."),
    privateKeyFile: z.string().min(1).describe('Its key, PEM, which other users of the machine must not read.'),
    trustFile: z
      .string()
      .min(1)
      .optional()
      .describe(
        'The root that certificates are to lead to, PEM. Left out: the authority in certificateFile, which then has to be a root.',
      ),
  }),
  z.strictObject({
    kind: z.literal('command'),
    command: z
      .array(z.string())
      .min(1)
      .describe('Argument vector, no shell. Gets a PKCS#10 request on standard input, answers the chain in PEM.'),
    workingDirectory: z.string().optional(),
    environment: z
      .record(z.string(), z.string())
      .default({})
      .describe('Beside PATH, HOME and CERTIFICATE_NAME, CERTIFICATE_NAME_KIND, CERTIFICATE_LIFETIME_S.'),
    timeoutS: z.number().min(0.1).max(600).default(30).describe('Of one call.'),
    trustFile: z.string().min(1).describe('The root that certificates are to lead to, PEM; while roots change, both.'),
  }),
]);

export const identitySettingsSchema = z.strictObject({
  folder: z
    .string()
    .default('.runs/identities')
    .describe('Where the keys and certificates of cells lie, a folder for each instance, of the user it runs as.'),
  issuer: issuerSchema.describe('local: signs with a key in a file. command: a command of your own signs.'),
  lifetimeS: z
    .number()
    .min(2)
    .default(86_400)
    .describe(
      'How long a certificate lives at most: none that holds longer is taken. It is renewed at half of its life.',
    ),
  client: z
    .strictObject({ kind: z.enum(['dns', 'uri']), value: z.string().min(1) })
    .default({ kind: 'dns', value: 'understudy' })
    .describe('Under which name Understudy itself asks cells whether they are ready, and warms them.'),
  shownWithinS: z
    .number()
    .min(0)
    .default(5)
    .describe('How long a cell may take to show a certificate that was renewed, before it is held against it.'),
});

export type IdentitySettings = z.infer<typeof identitySettingsSchema>;
