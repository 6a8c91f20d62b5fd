/** A real Envoy on a control plane's xDS port, and what it says of itself. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { envoyBootstrap, writeBootstrap, type BootstrapOptions, type BootstrapTls } from '../../envoy/bootstrap';
import { prepareEnvoy } from '../../local/envoy';
import { releasePorts, reservePorts } from '../../local/ports';
import { ManagedProcess } from '../../local/process';
import { Reaper } from '../../local/reaper-client';

export interface EnvoyProxy {
  /** The value of a counter or gauge by its full name; 0 if Envoy has none of that name. */
  stat(name: string): Promise<number>;
  /** All counters and gauges whose name contains the text. */
  stats(containing: string): Promise<Map<string, number>>;
  /** What Envoy holds, as its admin interface shows it. */
  admin(path: string): Promise<string>;
  log(): string;
  stop(): Promise<void>;
}

export async function startEnvoy(
  nodeId: string,
  xdsAddress: string,
  apiType: NonNullable<BootstrapOptions['apiType']> = 'DELTA_GRPC',
  tls?: BootstrapTls,
): Promise<EnvoyProxy> {
  const [adminPort] = (await reservePorts(1)) as [number];
  const dir = mkdtempSync(join(tmpdir(), 'understudy-envoy-'));
  const options = { nodeId, cluster: 'test', xdsAddress, adminPort, apiType, ...(tls && { tls, sdsDir: dir }) };
  writeBootstrap(dir, options);
  const bootstrap = envoyBootstrap(options);
  const reaper = new Reaper();
  reaper.removeAtEnd(dir);
  const ignore = (): void => undefined;
  const process = new ManagedProcess(prepareEnvoy(nodeId, dir, bootstrap, adminPort), reaper, {
    onLost: ignore,
    onRestart: ignore,
  });
  await process.start();
  const admin = async (path: string): Promise<string> => {
    const response = await fetch(`http://127.0.0.1:${adminPort}${path}`);
    return response.text();
  };
  const stats = async (containing: string): Promise<Map<string, number>> => {
    const text = await admin(`/stats?filter=${encodeURIComponent(containing.replace(/[|.]/g, '\\$&'))}`);
    const lines = text.split('\n').map((line) => line.split(': '));
    return new Map(
      lines.filter(([, value]) => /^\d+$/.test(value ?? '')).map(([name, value]) => [name!, Number(value)]),
    );
  };
  return {
    admin,
    stats,
    stat: async (name) => (await stats(name)).get(name) ?? 0,
    log: () => process.output(),
    stop: async () => {
      await process.stop();
      releasePorts([adminPort]);
      rmSync(dir, { recursive: true, force: true });
      await reaper.close();
    },
  };
}
