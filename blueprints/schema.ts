/** The documents people write: Service, Cell and Blueprint. From these schemas follow types, checks, JSON Schema and docs. */
import { z } from 'zod';
import { blueprintSchema } from './documents/blueprint';
import { cellSchema } from './documents/cell';
import { serviceSchema } from './documents/service';

export * from './documents/blueprint';
export * from './documents/cell';
export * from './documents/data-sync';
export * from './documents/policy';
export * from './documents/provider';
export * from './documents/service';
export * from './documents/warm-up';

export const documentKinds = ['Service', 'Cell', 'Blueprint'] as const;

export const documentSchema = z.discriminatedUnion('kind', [serviceSchema, cellSchema, blueprintSchema]);

export type Document = z.infer<typeof documentSchema>;
