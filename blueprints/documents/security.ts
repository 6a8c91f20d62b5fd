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

export const securitySchema = z
  .strictObject({
    user: z.string().min(1).optional().describe('User the cell runs as; the same for source and synthetic.'),
    identity: z.string().min(1).optional(),
    secrets: z.array(secretSchema).default([]).describe('References only, never values.'),
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
