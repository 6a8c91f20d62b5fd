/** Whether a cell that runs was made from this blueprint. */
import { isDeepStrictEqual } from 'node:util';
import { blueprintSchema, type BlueprintDocument } from '../blueprints/schema';

/** Compares through the schema, so that a setting with a default that a later version added makes no difference. */
export function isSameBlueprint(recorded: BlueprintDocument, wanted: BlueprintDocument): boolean {
  return isDeepStrictEqual(blueprintSchema.parse(recorded), blueprintSchema.parse(wanted));
}
