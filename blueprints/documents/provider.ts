/** Who runs the cells of a blueprint: its part `provider`. */
import { z } from 'zod';

export const providerSchema = z.enum(['process']).default('process');
