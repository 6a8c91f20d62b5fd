/** Where a cell answers and what it may call: the part `network` of a Blueprint. */
import { z } from 'zod';
import { port } from './fields';

export const networkSchema = z
  .strictObject({
    address: z.string().min(1).default('127.0.0.1').describe('Where the instances listen.'),
    ports: z
      .strictObject({ from: port, to: port })
      .optional()
      .describe('From which an instance gets its port. Left out: 15000 to 31999, below those of outgoing connections.'),
    zone: z.string().min(1).optional().describe("Where synthetic cells are made. Left out: the source's zone."),
    egress: z
      .array(z.string())
      .default([])
      .describe(
        'Allowed host:port. A record only for provider process, which adds nothing to what the machine allows; compared with what cells really call.',
      ),
  })
  .prefault({});
