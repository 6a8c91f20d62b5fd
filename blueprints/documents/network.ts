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
        'Allowed host:port. Whoever is connected elsewhere when it is to be armed is not armed; with `processProvider.egress: enforce` nobody can be. Left empty: nothing is compared.',
      ),
  })
  .prefault({});
