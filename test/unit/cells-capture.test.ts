/** A blueprint drafted from what runs says what was seen, keeps secrets out, and is accepted; drift from it is shown. */
import { expect } from 'chai';
import { parseDocuments } from '../../blueprints/apply';
import { crossCheck } from '../../blueprints/cross-checks';
import type { BlueprintDocument } from '../../blueprints/schema';
import type { CapturedProcess } from '../../cells/capture/captured';
import { draftBlueprint, draftText } from '../../cells/capture/draft';
import { driftOf } from '../../cells/capture/drift';
import { serviceDraftText } from '../../cells/capture/draft-service';
import { parseRunningCell } from '../../cells/capture/capture-service';
import { parseMounts } from '../../cells/protection/mounts';

const captured = (change: Partial<CapturedProcess> = {}): CapturedProcess => ({
  pid: 42,
  command: ['node', 'server.js', '--port', '8080', '--cell', 'shop-a', '--db', 'postgres://ada:hunter2@10.0.0.9/x'],
  environment: { PATH: '/bin', LISTEN: '10.0.0.5:8080', API_TOKEN: 'abc123', TERM: 'xterm' },
  workingDirectory: '/srv/shop',
  user: 'shop',
  protection: {
    instance: '42',
    uid: 1000,
    gid: 1000,
    groups: [],
    capabilities: [],
    noNewPrivileges: true,
    seccomp: 'none',
    limits: {},
    confinedBy: [],
    listens: [
      { address: '10.0.0.5', port: 7070 },
      { address: '10.0.0.5', port: 8080 },
    ],
    clearSecrets: [],
    mounts: [],
    reachable: [],
    secretFiles: [],
    calls: [],
    isEgressHeld: false,
    unseen: [],
  },
  residentBytes: 70 * 1_048_576,
  coresUsed: 0.1,
  calls: [{ address: '10.0.0.9', port: 5432 }],
  dependencies: [{ name: 'node', version: '20.19.4' }],
  unseen: [],
  ...change,
});
const textOf = (process = captured()) =>
  draftText(draftBlueprint({ name: 'shop', captured: process, words: { cell: 'shop-a' }, readinessPath: '/health' }));
const parsed = (text: string) => parseDocuments(text, 'draft.yaml')[0] as BlueprintDocument;
const known = { services: [], cells: [], blueprints: [] };

describe('A blueprint captured from a running process', () => {
  it('is accepted as it is, whatever the process looked like', () => {
    const bare = captured({ command: ['server'], environment: {}, user: undefined, calls: [], dependencies: [] });
    bare.protection.listens = [];
    for (const process of [captured(), bare]) {
      const document = parsed(textOf(process));
      expect(crossCheck([document], known)).to.deep.equal([]);
    }
  });

  it('says which files it may write where its mounts bound them', () => {
    const mounts = parseMounts(
      [
        '1 0 8:1 / / ro - ext4 /dev/sda rw',
        '2 1 8:1 / /var/lib/shop rw - ext4 /dev/sda rw',
        '3 1 0:9 / /root ro - tmpfs x rw',
      ].join('\n'),
    );
    const process = captured();
    const { document } = draftBlueprint({
      name: 'shop',
      captured: { ...process, protection: { ...process.protection, mounts } },
    });
    expect((document['security'] as Record<string, unknown>)['files']).to.deep.equal({
      writable: ['/var/lib/shop'],
      hidden: ['/root'],
    });
  });

  it('says command, user, address, egress and versions, with the places that change left open', () => {
    const { image, network, security, dependencies, readiness } = parsed(textOf());
    expect(image.command.slice(0, 6)).to.deep.equal(['node', 'server.js', '--port', '{port}', '--cell', '{cell}']);
    expect(image.environment['LISTEN']).to.equal('{address}:{port}');
    expect(image.workingDirectory).to.equal('/srv/shop');
    expect(network).to.deep.include({ address: '10.0.0.5', egress: ['10.0.0.9:5432'] });
    expect(security).to.deep.include({ user: 'shop', capabilities: [], noNewPrivileges: true });
    expect(dependencies).to.deep.equal([{ name: 'node', version: '20.19.4' }]);
    expect(readiness.path).to.equal('/health');
  });

  it('holds no secret, only where to put it', () => {
    const text = textOf();
    expect(text).not.to.match(/hunter2|abc123/);
    const { image, security } = parsed(text);
    expect(image.command[7]).to.equal('{secret:db}');
    expect(image.environment['API_TOKEN_FILE']).to.equal('{secret:api-token}');
    expect(security.secrets).to.deep.equal([
      { name: 'db', from: 'file:/etc/shop/secrets/db' },
      { name: 'api-token', from: 'file:/etc/shop/secrets/api-token' },
    ]);
  });

  it('says what it could not see', () => {
    const text = textOf();
    expect(text).to.match(/# - it also listens on 10\.0\.0\.5:7070/);
    expect(text).to.match(/requestsPerSecond: 1 # NOT SEEN/);
    expect(text).to.match(/# - egress: only what was connected at this moment/);
  });

  it('has no drift from the process it came from, apart from the secrets that are still in clear there', () => {
    const paths = driftOf(captured(), parsed(textOf())).map(({ path }) => path);
    expect(paths).to.deep.equal(['image.environment.API_TOKEN_FILE', 'image.environment.API_TOKEN']);
  });

  it('puts what the shell of the capture has, too, at the end and says so; the value decides, not the name', () => {
    const process = captured({ environment: { PIP_CERT: '/x', MODE: 'live', LANG: 'C' } });
    const surroundings = { PIP_CERT: '/x', LANG: 'de' };
    const draft = draftBlueprint({ name: 'shop', captured: process, surroundings });
    expect(Object.keys(parsed(draftText(draft)).image.environment).slice(0, 3)).to.deep.equal([
      'MODE',
      'LANG',
      'PIP_CERT',
    ]);
    expect(draftText(draft)).to.match(/# - environment: the last variable is as in the shell .*\(PIP_CERT\)/);
  });

  it('takes the port that was named, where it listens on several', () => {
    const draft = draftBlueprint({ name: 'shop', captured: captured(), port: 7070 });
    expect(draftText(draft)).to.match(/it also listens on 10\.0\.0\.5:8080/);
  });

  it('tells many variables that the blueprint does not set in one line', () => {
    const environment = { ...captured().environment, A: '1', B: '2', C: '3', D: '4' };
    const found = driftOf(captured({ environment }), parsed(textOf())).map(({ path }) => path);
    expect(found.filter((path) => path === 'image.environment')).to.have.length(1);
    expect(found.filter((path) => /\.[ABCD]$/.test(path))).to.deep.equal([]);
  });

  const drifted: [string, string, Partial<CapturedProcess>][] = [
    ['another argument', 'image.command', { command: ['node', 'other.js', ...captured().command.slice(2)] }],
    ['another version', 'dependencies', { dependencies: [{ name: 'node', version: '22.1.0' }] }],
    ['another user', 'security.user', { user: 'root' }],
    ['a call that egress does not name', 'network.egress', { calls: [{ address: '1.2.3.4', port: 443 }] }],
    ['another folder', 'image.workingDirectory', { workingDirectory: '/tmp' }],
    ['more memory than it would get', 'resources.memoryLimitMib', { residentBytes: 2e9 }],
    ['a variable of its own', 'image.environment.MODE', { environment: { ...captured().environment, MODE: 'x' } }],
  ];
  for (const [what, path, change] of drifted)
    it(`shows drift: ${what}`, () => {
      const blueprint = parsed(textOf());
      const before = new Set(driftOf(captured(), blueprint).map(({ path: at }) => at));
      const found = driftOf(captured(change), blueprint).filter((drift) => !before.has(drift.path));
      expect(found.map((drift) => drift.path)).to.deep.equal([path]);
    });
});

describe('A service captured from its running instances', () => {
  const cells = ['shop-a=10.0.0.5:8080,10.0.0.6:8080', 'shop-b=8081', 'shop-c=8082'].map(parseRunningCell);
  const textFor = (healthPath: string | undefined) =>
    serviceDraftText({
      ...{ service: 'shop', listenerPort: 10080, cells, healthPath },
      blueprint: draftBlueprint({ name: 'shop', captured: captured(), instances: 2, readinessPath: healthPath }),
    });

  it('is accepted as it is, observes only, and is asked for health where it answers', () => {
    const documents = parseDocuments(textFor('/health'), 'draft.yaml');
    expect(documents.map(({ kind, name }) => `${kind} ${name}`)).to.deep.equal([
      'Service shop',
      'Cell shop-a',
      'Cell shop-b',
      'Cell shop-c',
      'Blueprint shop',
    ]);
    expect(crossCheck(documents, known)).to.deep.equal([]);
    expect(documents[0]).to.deep.nested.include({
      'healthCheck.path': '/health',
      'policy.autonomy': 'observe',
      safeSplit: { 'shop-a': 3334, 'shop-b': 3333, 'shop-c': 3333 },
    });
    expect(documents[1]).to.deep.include({
      instances: [
        { name: 'shop-a-1', address: '10.0.0.5', port: 8080 },
        { name: 'shop-a-2', address: '10.0.0.6', port: 8080 },
      ],
    });
  });

  it('says so where no usual path was answered by all', () => {
    expect(textFor(undefined)).to.match(/path: \/healthz # NOT SEEN: none of the usual paths/);
    expect(crossCheck(parseDocuments(textFor(undefined), 'draft.yaml'), known)).to.deep.equal([]);
  });

  it('refuses a cell that names no port', () => {
    for (const text of ['shop-a', 'shop-a=', 'shop-a=host', '=8080', 'shop-a=8080,', 'shop-a=99999'])
      expect(() => parseRunningCell(text), text).to.throw('NAME=PORT');
  });
});
