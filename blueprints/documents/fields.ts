/** Values that several documents share. */
import { z } from 'zod';

export const name = z
  .string()
  .regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, 'must be lower-case letters, digits and hyphens, 1 to 63 characters');
export const probability = z.number().min(0).max(1);
export const port = z.number().int().min(1).max(65535);
export const basisPoints = z.number().int().min(0).max(10_000);
