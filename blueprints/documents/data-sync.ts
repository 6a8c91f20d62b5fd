/** How the data of a synthetic cell follows its source's: the part `dataSync` of a Blueprint. */
import { z } from 'zod';

export const dataSyncSchema = z.strictObject({ kind: z.literal('none') }).default({ kind: 'none' });
