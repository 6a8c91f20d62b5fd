/** Fills the words in braces of a blueprint's command and environment for one instance. */
import { withSecretFiles } from '../blueprints/blueprint-checks';
import type { BlueprintDocument } from '../blueprints/schema';
import { identityEnvironment, type IdentityFiles } from './identity/identity-files';

export interface Placement {
  cell: string;
  service: string;
  instance: string;
  /** Where the instance is to listen. */
  address: string;
  port: number;
  /** A folder of the instance. */
  dir: string;
  /** As the instance sees them. */
  identity?: IdentityFiles | undefined;
}

export function filledCommand(
  blueprint: BlueprintDocument,
  placement: Placement,
): { command: string[]; environment: Record<string, string> } {
  const { port, identity, ...words } = placement;
  const { command, environment } = withSecretFiles(blueprint);
  const values: Record<string, string> = {
    ...words,
    port: String(port),
    memoryLimitMib: String(blueprint.resources.memoryLimitMib),
    ...(identity && { tlsCert: identity.certificateFile, tlsKey: identity.privateKeyFile, tlsCa: identity.caFile }),
  };
  const fill = (text: string) => text.replace(/\{([A-Za-z]+)\}/g, (whole, key: string) => values[key] ?? whole);
  return {
    command: command.map(fill),
    environment: {
      ...Object.fromEntries(Object.entries(environment).map(([key, value]) => [key, fill(value)])),
      ...identityEnvironment(identity),
    },
  };
}
