/** What a cell may do, and where its secrets are: the part `security` of a Blueprint. What is stated is read back before a cell is armed. */
import { z } from 'zod';
import { name } from './fields';

const secretSchema = z.strictObject({
  name: name.describe('`{secret:NAME}` in command and environment becomes the file that holds it.'),
  from: z
    .string()
    .regex(/^[a-z][a-z0-9+.-]*:./, 'must say where the secret is, such as file:/etc/shop/db-password; never the secret')
    .describe('A reference, never the secret. Provider process takes `file:/path`, readable by the user.'),
});

const identitySchema = z
  .strictObject({
    kind: z.enum(['dns', 'uri']),
    value: z
      .string()
      .regex(/^\S{1,255}$/, 'must be a name without blanks')
      .refine((value) => value.includes('{cell}'), { message: "must hold {cell}, which stands for the cell's name" })
      .describe("The one name in a cell's certificate, such as `spiffe://shop.example/cell/{cell}`."),
    minRemainingS: z
      .number()
      .min(0)
      .default(600)
      .describe('How long a certificate must still hold when the cell is armed.'),
  })
  .describe(
    'Each cell has a certificate of its own and speaks TLS with nobody but whom the same authority has certified. It finds key, certificate and authorities by CELL_TLS_KEY_FILE, CELL_TLS_CERT_FILE and CELL_TLS_CA_FILE. Read back before it is armed. The settings say who issues: `cells.identity`.',
  );

const filePath = z
  .string()
  .regex(/^(\{dir\}|\/.*[^/])$/, 'must be a whole path other than /, without a slash at its end, or {dir}');

const filesSchema = z
  .strictObject({
    writable: z
      .array(filePath)
      .default([])
      .describe(
        'Folders and files that it may write, where their own rights let it. Beside {dir}, which it always may.',
      ),
    hidden: z
      .array(filePath)
      .default([])
      .describe('What it must not even see, such as /root. Provider docker: folders only.'),
  })
  .describe(
    'Bounds by mounts of its own: all other files are read-only. Read back before it is armed. Left out: what the rights of its user allow. Provider process must be root for that.',
  );

export const securitySchema = z
  .strictObject({
    user: z.string().min(1).optional().describe('User the cell runs as; the same for source and synthetic.'),
    identity: identitySchema.optional(),
    secrets: z.array(secretSchema).default([]).describe('References only, never values.'),
    files: filesSchema.optional(),
    capabilities: z
      .array(z.string().regex(/^CAP_[A-Z_]+$/, 'must be a Linux capability such as CAP_NET_BIND_SERVICE'))
      .optional()
      .describe('All that the cell may hold. Left out: no more than its source holds.'),
    noNewPrivileges: z
      .boolean()
      .optional()
      .describe('Whether the cell must be unable to gain rights by setuid programs. Left out: as its source.'),
    seccomp: z
      .enum(['strict', 'filter', 'none'])
      .optional()
      .describe('The weakest filter of system calls that is accepted. Left out: as its source.'),
  })
  .prefault({});
