/** Settings of those who run cells: which providers there are, and how long a cell is kept that nobody asks for. */
import { z } from 'zod';
import { identitySettingsSchema } from './identity-settings';

export const processProviderSchema = z
  .strictObject({
    stateDir: z.string().describe('Where the process provider keeps what it runs.').default('.runs/cells'),
    user: z
      .string()
      .min(1)
      .optional()
      .describe(
        'User of the cells whose blueprint names none, for which Understudy must be root: an account, or `allocate` for a user number of each instance’s own. Left out: the user that Understudy runs as.',
      ),
    egress: z
      .enum(['record', 'enforce'])
      .default('record')
      .describe(
        'enforce: the packet filter of the machine (iptables) keeps each instance to network.egress of its blueprint, all of them, those with nothing in it too. Needs root and cells of user `allocate`.',
      ),
  })
  .prefault({});

export const dockerProviderSchema = z
  .strictObject({
    socketPath: z
      .string()
      .optional()
      .describe('The socket of the Docker or Podman engine. Left out: as DOCKER_HOST says, or /var/run/docker.sock.'),
    installation: z
      .string()
      .regex(/^[a-z0-9][a-z0-9-]{0,30}$/)
      .default('default')
      .describe('Tells the containers of this Understudy apart from those of another on the same engine.'),
    network: z
      .string()
      .default('host')
      .describe('`host`, or a network of the engine, in which ports are published at network.address.'),
    graceS: z.number().int().min(0).max(300).default(5).describe('Seconds between SIGTERM and SIGKILL.'),
  })
  .optional()
  .describe('Left out: cells are not run as containers.');

export const execProvidersSchema = z
  .record(
    z.string().regex(/^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/),
    z.strictObject({
      command: z.array(z.string()).min(1).describe('Argument vector, no shell.'),
      workingDirectory: z.string().optional(),
      environment: z.record(z.string(), z.string()).default({}).describe('Beside PATH and HOME its whole environment.'),
      timeoutS: z.number().min(0.1).max(3600).default(30).describe('Of one call.'),
    }),
  )
  .default({})
  .describe('Commands of your own that run cells, by name: a blueprint chooses one with provider exec:NAME.');

export const cellSettingsSchema = z
  .strictObject({
    leaseS: z
      .number()
      .min(10)
      .default(3600)
      .describe(
        'A synthetic cell that no worker has renewed for as long, and that the store does not know, is an orphan.',
      ),
    poolEveryS: z
      .number()
      .min(1)
      .default(60)
      .describe(
        'Seconds between looks at whether a service lacks an idle cell; after a failure the next attempt waits as long, then twice as long each time, up to 900 s.',
      ),
    lookEveryS: z
      .number()
      .min(1)
      .default(900)
      .describe('Seconds between looks for orphans, and for drift between declared cells and their blueprints.'),
    sweep: z
      .enum(['look', 'remove'])
      .default('look')
      .describe('look: orphans are found and told. remove: they are removed, as by `understudy cells sweep --remove`.'),
    identity: identitySettingsSchema
      .optional()
      .describe('Needed where a blueprint gives its cells an identity (security.identity).'),
  })
  .prefault({});
