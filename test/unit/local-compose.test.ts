import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { parse } from 'yaml';
import { settingsSchema } from '../../blueprints/settings';
import { envoyBootstrap } from '../../envoy/bootstrap';
import { topics } from '../../local/kafka';
import { partVersion } from '../../local/parts';
import { searchAttributeArguments } from '../../local/temporal';
import { packageRoot } from '../../package-root';

interface Compose {
  services: Record<string, { image: string; command?: string[]; network_mode?: string; ports?: string[] }>;
  configs: { settings: { content: string }; envoy: { content: string } };
}

describe('docker-compose.yml', () => {
  const compose = parse(readFileSync(join(packageRoot, 'docker-compose.yml'), 'utf8'), { merge: true }) as Compose;
  const settings = settingsSchema.parse(parse(compose.configs.settings.content));

  it('creates the topics that the local stack creates', () => {
    const script = compose.services['kafka-topics']!.command!.join('\n');
    const created = [...script.matchAll(/create --topic (\S+) --partitions (\d+)((?: --config \S+=\S+)*)/g)];
    const specs = created.map(([, topic, partitions, config = '']) => ({
      topic,
      partitions: Number(partitions),
      config: Object.fromEntries(
        [...config.matchAll(/--config (\S+?)=(\S+)/g)].map(([, key = '', value = '']): [string, string] => [
          key,
          value,
        ]),
      ),
    }));
    expect(specs).to.deep.equal(topics(settings.kafka));
  });

  it('registers the search attributes that the local stack registers', () => {
    const prefix = '--search-attribute=';
    const registered = compose.services['temporal']!.command!.filter((argument) => argument.startsWith(prefix));
    expect(registered.map((argument) => argument.slice(prefix.length))).to.deep.equal(searchAttributeArguments());
  });

  it('takes the versions that the local stack takes', () => {
    const tags = ['kafka', 'temporal', 'envoy'].map((name) => compose.services[name]!.image.split(':')[1]);
    expect(tags).to.deep.equal([partVersion('kafka'), partVersion('temporal'), `v${partVersion('envoy')}`]);
  });

  it('starts Envoy with the bootstrap that the local stack generates', () => {
    const { xdsAddress } = settings.controlPlane;
    const generated = JSON.parse(
      JSON.stringify(envoyBootstrap({ nodeId: 'envoy', cluster: 'understudy', xdsAddress, adminPort: 9901 })),
    ) as { admin: { address: { socket_address: { address: string } } } };
    // Published to the host's loopback interface, for which it must listen on all of the container's.
    generated.admin.address.socket_address.address = '0.0.0.0';
    expect(parse(compose.configs.envoy.content)).to.deep.equal(generated);
  });

  it('publishes nothing beyond the loopback interface', () => {
    const published = Object.values(compose.services).flatMap(({ ports = [] }) => ports);
    expect(published).not.to.be.empty;
    expect(published.filter((port) => !port.startsWith('127.0.0.1:'))).to.deep.equal([]);
  });
});
