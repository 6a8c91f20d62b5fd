import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { waitUntil } from '../../local/wait';
import { packageRoot } from '../../package-root';

const fromRoot = createRequire(join(packageRoot, 'package.json'));

describe('Setting up', function () {
  this.timeout(60_000);
  let root: string;
  let bin: string;
  let calls: string;

  beforeEach(() => {
    // A fresh clone as far as the bootstrap can tell: sources, and nothing installed.
    root = mkdtempSync(join(tmpdir(), 'understudy-clone-'));
    bin = join(root, 'bin');
    calls = join(root, 'calls');
    mkdirSync(bin);
    cpSync(join(packageRoot, 'local'), join(root, 'local'), { recursive: true });
    for (const file of ['package.json', 'package-lock.json']) cpSync(join(packageRoot, file), join(root, file));
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  /** A program that answers questions about its version and records everything else. */
  function install(name: string, version: string): void {
    const script = `#!/bin/sh\ncase "$*" in *version*) echo '${version}';; *) echo ${name} >> ${calls}; exit 1;; esac\n`;
    writeFileSync(join(bin, name), script, { mode: 0o755 });
  }

  function setUp() {
    return spawnSync(process.execPath, [join(root, 'local', 'bootstrap.cjs'), 'setup'], {
      env: { PATH: bin },
      encoding: 'utf8',
    });
  }

  it('names a missing Java, and nothing else, before anything is downloaded', () => {
    for (const name of ['npm', 'python3', 'mvn']) install(name, '99.0');
    const { status, stderr } = setUp();
    expect(status).to.equal(1);
    expect(stderr).to.match(/^Java 17 or newer is needed and was not found: .*apt-get install openjdk/);
    expect(stderr.trim().split('\n')).to.have.lengthOf(1);
    expect(existsSync(calls)).to.equal(false);
  });

  it('names a Java that is too old with its version', () => {
    for (const name of ['npm', 'python3', 'mvn']) install(name, '99.0');
    install('java', 'openjdk version "1.8.0_392"');
    expect(setUp().stderr).to.match(/^Java 17 or newer is needed, but `java` is 1\.8\.0/);
    expect(existsSync(calls)).to.equal(false);
  });

  it('names all that is missing at once, one line each', () => {
    const lines = setUp().stderr.trim().split('\n');
    expect(lines.map((line) => line.split(' is needed')[0])).to.deep.equal([
      'npm',
      'Python 3',
      'pip for Python 3',
      'Java 17 or newer',
      'Maven (mvn)',
    ]);
  });

  it('goes on to download when nothing is missing', () => {
    for (const name of ['npm', 'python3', 'mvn']) install(name, '99.0');
    install('java', 'openjdk version "17.0.15"');
    expect(setUp().stderr).to.include('npm packages, by npm ci ...');
    expect(readFileSync(calls, 'utf8')).to.equal('npm\n');
  });
});

describe('Fetching a server', function () {
  this.timeout(60_000);
  const jar = 'the whole jar';
  let root: string;
  let bin: string;

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'understudy-parts-'));
    bin = join(root, 'bin');
    mkdirSync(bin);
    mkdirSync(join(root, 'local'));
    const sha256 = createHash('sha256').update(jar).digest('hex');
    const part = { version: '1', title: 'Server', source: 'maven', plugin: 'g:p:1', artifacts: ['g:a:1'] };
    writeFileSync(
      join(root, 'local', 'parts.lock.json'),
      JSON.stringify({ server: { ...part, jars: { 'a.jar': sha256 } } }),
    );
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  function mavenThat(does: string): void {
    writeFileSync(join(bin, 'mvn'), `#!/bin/sh\nmkdir -p libs\n${does}\n`, { mode: 0o755 });
  }

  function fetch() {
    const program = join(packageRoot, 'local', 'fetch-parts.cjs');
    const script = `require(${JSON.stringify(program)}).fetchParts(process.argv[1], process.argv[1] + '/.parts', (_, work) => work())
      .catch((error) => { console.error(error.message); process.exitCode = 1; })`;
    const child = spawn(process.execPath, ['-e', script, root], {
      env: { ...process.env, PATH: `${bin}:${process.env.PATH}` },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let errors = '';
    child.stderr.on('data', (chunk) => (errors += String(chunk)));
    const ended = new Promise<{ code: number | null; errors: string }>((resolve) =>
      child.on('close', (code) => resolve({ code, errors })),
    );
    return { child, ended };
  }

  function missing(): string[] {
    const { missingParts } = fromRoot('./local/fetch-parts.cjs') as {
      missingParts: (root: string, partsDir: string) => string[];
    };
    return missingParts(root, join(root, '.parts'));
  }

  it('does not trust what an interrupted set-up left, and takes it up again', async () => {
    mavenThat(
      `printf 'half' > libs/a.jar\necho $$ > ${root}/pid.tmp && mv ${root}/pid.tmp ${root}/pid\nexec sleep 600`,
    );
    const { child, ended } = fetch();
    const pid = await waitUntil(
      () => existsSync(join(root, 'pid')) && Number(readFileSync(join(root, 'pid'), 'utf8')),
      {
        withinMs: 20_000,
        what: 'Maven is in mid-download',
      },
    );
    child.kill('SIGKILL');
    process.kill(pid, 'SIGKILL');
    await ended;
    expect(missing()).to.deep.equal(['server']);

    mavenThat(`printf '${jar}' > libs/a.jar`);
    expect(await fetch().ended).to.deep.equal({ code: 0, errors: '' });
    expect(missing()).to.deep.equal([]);
    expect(readdirSync(join(root, '.parts'))).to.deep.equal(['server-1']);
  });

  it('refuses a file that is not the one in the lock, and says which', async () => {
    mavenThat(`printf 'another jar' > libs/a.jar`);
    const { code, errors } = await fetch().ended;
    expect(code).to.equal(1);
    expect(errors).to.include('a.jar is not the file that the lock names');
    expect(readdirSync(join(root, '.parts'))).to.deep.equal([]);
  });

  it('fetches again what stands in place for an older lock', async () => {
    mkdirSync(join(root, '.parts', 'server-1'), { recursive: true });
    writeFileSync(join(root, '.parts', 'server-1', 'part.json'), '{"fingerprint":"of another lock"}');
    expect(missing()).to.deep.equal(['server']);
    mavenThat(`printf '${jar}' > libs/a.jar`);
    expect(await fetch().ended).to.deep.equal({ code: 0, errors: '' });
    expect(missing()).to.deep.equal([]);
  });

  it('lets two set-ups at once end well', async () => {
    mavenThat(`printf '${jar}' > libs/a.jar`);
    const results = await Promise.all([fetch().ended, fetch().ended]);
    expect(results).to.deep.equal([
      { code: 0, errors: '' },
      { code: 0, errors: '' },
    ]);
    expect(readdirSync(join(root, '.parts'))).to.deep.equal(['server-1']);
  });
});

describe('Building', () => {
  it('removes the compiled form of a test whose source is gone, and nothing else', () => {
    const root = mkdtempSync(join(tmpdir(), 'understudy-dist-'));
    try {
      for (const dir of ['test', 'dist/test']) mkdirSync(join(root, dir), { recursive: true });
      writeFileSync(join(root, 'test', 'here.test.ts'), '');
      for (const name of ['here.test.js', 'here.test.js.map', 'gone.test.js', 'gone.test.js.map', 'golden.json']) {
        writeFileSync(join(root, 'dist', 'test', name), '');
      }
      (fromRoot('./local/build.cjs') as { removeOrphans: (root: string) => void }).removeOrphans(root);
      expect(readdirSync(join(root, 'dist', 'test')).sort()).to.deep.equal([
        'golden.json',
        'here.test.js',
        'here.test.js.map',
      ]);
    } finally {
      rmSync(root, { recursive: true });
    }
  });
});

describe('The installed packages', () => {
  it('give all of Temporal one copy of protobufjs 8, without which recorded histories cannot be read', () => {
    const scope = join(packageRoot, 'node_modules', '@temporalio');
    const copies = new Set<string>();
    for (const name of readdirSync(scope)) {
      const manifest = JSON.parse(readFileSync(join(scope, name, 'package.json'), 'utf8')) as {
        dependencies?: Record<string, string>;
      };
      if (!manifest.dependencies?.['protobufjs']) continue;
      copies.add(createRequire(join(scope, name, 'package.json')).resolve('protobufjs/package.json'));
    }
    expect([...copies]).to.have.lengthOf(1);
    const { version } = JSON.parse(readFileSync([...copies][0]!, 'utf8')) as { version: string };
    expect(version).to.match(/^8\./);
  });
});
