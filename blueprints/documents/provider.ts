/** Who runs the cells of a blueprint: its part `provider`. */
import { z } from 'zod';

export const providerSchema = z
  .string()
  .regex(/^(process|docker|exec:[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?)$/, 'must be process, docker or exec:NAME')
  .default('process')
  .describe(
    'process: processes of this machine. docker: containers of a Docker or Podman engine. exec:NAME: the command that the settings give under execProviders.NAME.',
  );
