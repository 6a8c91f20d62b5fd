/** The document Cell: a complete, isolated copy of a service that runs already. */
import { z } from 'zod';
import { name, port } from './fields';

export const instanceSchema = z.strictObject({ name, address: z.string(), port });

export const cellSchema = z.strictObject({
  kind: z.literal('Cell'),
  name,
  service: name,
  role: z.enum(['primary', 'secondary']),
  zone: z.string().default('local'),
  blueprint: name.describe('The blueprint this cell was made from; its newest version is taken.'),
  instances: z
    .array(instanceSchema)
    .default([])
    .describe('Where the cell answers. Leave empty for a cell that a provider runs: its instances are then observed.'),
});

export type CellDocument = z.infer<typeof cellSchema>;
export type Instance = z.infer<typeof instanceSchema>;
