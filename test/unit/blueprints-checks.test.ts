/** A blueprint that would be a danger is refused whole, with every field and reason. */
import { expect } from 'chai';
import { parseDocuments } from '../../blueprints/apply';
import { blueprintProblems, withSecretFiles } from '../../blueprints/blueprint-checks';
import { secretArguments, whySecret } from '../../blueprints/clear-secrets';
import { pathText } from '../../blueprints/paths';
import { blueprintSchema } from '../../blueprints/schema';
import { blueprintDocument } from '../support/documents';

const said = (change: Record<string, unknown>) =>
  blueprintProblems({ ...blueprintDocument(), ...change }).map(({ path, reason }) => `${pathText(path)}: ${reason}`);
const withCommand = (...command: string[]) => said({ image: { command } });

describe('A blueprint', () => {
  it('is refused with everything that is wrong with it at once: shape, resources, secrets, paths and injections', () => {
    const text = `kind: Blueprint
name: shop
image:
  command: [node, server.js, --port, '{port}', --db-password, hunter2, 'x; rm -rf /']
  environment:
    API_TOKEN: abc123
    CACHE: '{dir}/../../etc'
  colour: red
resources: { instances: 0, memoryLimitMib: 32, memoryRequestMib: 64, cpu: 0.001 }
capacity: { requestsPerSecond: 10 }
`;
    let lines: string[] = [];
    try {
      parseDocuments(text, 'shop.yaml');
    } catch (error) {
      lines = (error as Error).message.split('\n');
    }
    const places = lines.map((line) =>
      /^shop\.yaml:(\d+): document 1 \(Blueprint shop\): ([^:]*):/.exec(line)?.slice(1).join(' '),
    );
    expect(places).to.have.members([
      '4 image.command[5]',
      '4 image.command[6]',
      '6 image.environment.API_TOKEN',
      '7 image.environment.CACHE',
      '8 image.colour',
      '9 resources.instances',
      '9 resources.memoryLimitMib',
      '9 resources.cpu',
    ]);
    expect(lines.join('\n')).not.to.match(/hunter2|abc123/);
    expect(lines.find((line) => line.includes('API_TOKEN'))).to.contain(
      "name that in security.secrets ({ name: api-token, from: 'file:/...' }) and write {secret:api-token} here",
    );
  });

  it('cannot hide a command within a command', () => {
    expect(withCommand('sh', '-c', 'server {port}')[0]).to.match(
      /^image\.command\[0\]: sh would run text as a command/,
    );
    expect(withCommand('/usr/bin/env', 'bash', '-lc', 'x')[0]).to.match(/^image\.command\[1\]/);
    for (const word of ['$(id)', '`id`', 'a && b', 'a | b', 'a > b', '${X}', 'a\nb'])
      expect(withCommand('server', word), word).to.have.length(1);
    expect(withCommand('server', '--url=http://x/?a=1&b=2', '--name', "O'Hara", '{port}', '50%')).to.deep.equal([]);
  });

  it('cannot lead out of its folders', () => {
    expect(withCommand('server', '--data={dir}/../other')).to.have.length(1);
    expect(said({ image: { command: ['x'], workingDirectory: '/srv/shop/../../etc' } })).to.have.length(1);
    expect(
      said({
        security: {
          secrets: [
            { name: 'a', from: 'file:/etc/../root/x' },
            { name: 'b', from: 'file:x' },
          ],
        },
      }),
    ).to.have.length(2);
    expect(said({ readiness: { path: '/a/../admin' } })).to.have.length(1);
    expect(withCommand('server', '--range=1..10', 'v1..v2')).to.deep.equal([]);
  });

  it('cannot ask for resources that cannot be', () => {
    const resources = (change: object) => said({ resources: { instances: 2, memoryLimitMib: 64, ...change } });
    expect(resources({ memoryRequestMib: 65 })[0]).to.equal(
      'resources.memoryLimitMib: 64 MiB is less than the 65 that memoryRequestMib asks for',
    );
    expect(resources({ cpuRequest: 2, cpu: 1 })).to.have.length(1);
    expect(resources({ cpu: 1e9 })[0]).to.match(/no control group can hold/);
    expect(said({ network: { ports: { from: 9000, to: 9000 } } })[0]).to.match(/no room for 2 instances/);
    for (const change of [
      { memoryLimitMib: 0 },
      { memoryLimitMib: 1e15 },
      { processes: 0 },
      { openFiles: 1e9 },
      { cpu: 0 },
    ])
      expect(
        () => blueprintDocument({ resources: { memoryLimitMib: 64, ...change } }),
        JSON.stringify(change),
      ).to.throw();
  });

  it('cannot name a secret that is nowhere, or anything as egress that is no host and port', () => {
    expect(said({ image: { command: ['x', '{secret:db}'] } })).to.deep.equal([
      'image.command[1]: there is no secret db in security.secrets',
    ]);
    expect(said({ network: { egress: ['db.internal:5432', '10.0.0.0/8:*', '[::1]:80', '*.shop:443'] } })).to.deep.equal(
      [],
    );
    expect(said({ network: { egress: ['db.internal', 'db:0', 'http://db:80/'] } })).to.have.length(3);
  });

  it('cannot hide from the cell what it needs, or lead out of the files it names', () => {
    const files = { writable: ['/srv/shop/data'], hidden: ['/srv/shop', '/etc/shop', '/home/../root'] };
    const secrets = [{ name: 'db', from: 'file:/etc/shop/db' }];
    expect(said({ security: { files, secrets } })).to.deep.equal([
      'security.files.hidden[2]: must not hold ".."',
      'security.files.writable[0]: lies in /srv/shop, which security.files.hidden hides',
      'security.secrets[0].from: lies in /etc/shop, which security.files.hidden hides',
    ]);
    for (const path of ['/', 'data', '/data/'])
      expect(() => blueprintDocument({ security: { files: { writable: [path] } } }), path).to.throw();
  });

  it('gives the program the file of a secret, never the secret', () => {
    const blueprint = blueprintDocument({
      image: { command: ['x', '--key={secret:key}', '{port}'], environment: { DB_PASSWORD_FILE: '{secret:key}' } },
      security: { secrets: [{ name: 'key', from: 'file:/etc/shop/key' }] },
    });
    expect(blueprintProblems(blueprint)).to.deep.equal([]);
    const { command, environment } = withSecretFiles(blueprint);
    expect(command[1]).to.equal('--key=/etc/shop/key');
    expect(environment).to.deep.equal({ DB_PASSWORD_FILE: '/etc/shop/key' });
  });

  it('that an older version stored is still read, whatever would be refused of it today', () => {
    const old = { ...blueprintDocument(), image: { command: ['sh', '-c', 'x'], environment: { TOKEN: 'abc' } } };
    expect(blueprintSchema.safeParse(old).success).to.equal(true);
  });

  it('knows a secret by its name or its look, and what is only about one', () => {
    const secret = [
      'DB_PASSWORD=x',
      'DB_PWD=x',
      'api-key=x',
      'AUTH_TOKEN=x',
      'URL=postgres://ada:pw@db/x',
      'K=-----BEGIN RSA PRIVATE KEY-----',
    ];
    const plain = [
      'TOKEN_TTL=30',
      'DB_PASSWORD_FILE=/x',
      'PASSWORD_REQUIRED=true',
      'AUTHOR=ada',
      'URL=http://db/x',
      'SECRET=',
      'KEYBOARD=de',
      'PWD=/srv',
      'OLDPWD=/srv',
    ];
    const isSecret = (text: string) => {
      const [name = '', ...value] = text.split('=');
      return whySecret(name, value.join('=')) !== undefined;
    };
    expect(secret.filter((text) => !isSecret(text))).to.deep.equal([]);
    expect(plain.filter(isSecret)).to.deep.equal([]);
    expect(
      secretArguments(['x', '--password', 'p', '--token=t', '--password', '--verbose']).map(({ index }) => index),
    ).to.deep.equal([2, 3]);
  });
});
