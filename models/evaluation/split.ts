/** Which groups of a recording were kept out of training: said once, in the manifest, and read here by whoever asks. */
import { z } from 'zod';

/** As the manifest says it. */
export const splitSchema = z.object({
  heldOutServices: z.array(z.string()),
  heldOutEvery: z.number(),
  heldOutRemainder: z.number(),
});

export type Split = z.infer<typeof splitSchema>;

/** Whether a group was kept out of training. */
export const isHeldOut = (split: Split, { service, number }: { service: string; number: number }): boolean =>
  split.heldOutServices.includes(service) || number % split.heldOutEvery === split.heldOutRemainder;
