// Compiles the sources to dist/, incrementally, and keeps dist/ free of what has no source any more.
'use strict';
const { createHash } = require('node:crypto');
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const notSources = new Set(['node_modules', 'dist', 'build']);

/** Whether any source changed since the last build that succeeded. */
function isBuildStale(root) {
  const dist = path.join(root, 'dist');
  if (!fs.existsSync(path.join(dist, 'cli', 'understudy.js'))) return true;
  try {
    return fs.readFileSync(path.join(dist, '.built'), 'utf8') !== sourceState(root);
  } catch {
    return true;
  }
}

/** Compiles. Answers the compiler's complaints; an empty string if there are none. */
async function build(root) {
  const before = sourceState(root);
  removeOrphans(root);
  const compiler = path.join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  const { code, output } = await capture(process.execPath, [compiler, '-p', root, '--pretty', 'false'], root);
  if (code !== 0) return output.trim() || `tsc ended with ${code}`;
  fs.writeFileSync(path.join(root, 'dist', '.built'), before);
  return '';
}

/** Names, sizes and times of all sources: cheap to take, and different after any edit or checkout. */
function sourceState(root) {
  const hash = createHash('sha256');
  for (const file of ['tsconfig.json', 'package-lock.json', ...sources(root)]) {
    const { size, mtimeMs } = fs.statSync(path.join(root, file));
    hash.update(`${file} ${size} ${mtimeMs}\n`);
  }
  return hash.digest('hex');
}

function* sources(root, dir = '') {
  const entries = fs.readdirSync(path.join(root, dir), { withFileTypes: true });
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const file = path.join(dir, entry.name);
    if (entry.isDirectory()) {
      if (!notSources.has(entry.name) && !entry.name.startsWith('.')) yield* sources(root, file);
    } else if (entry.name.endsWith('.ts')) yield file;
  }
}

/** A compiled test whose source is gone would still be run. Files of a build beside this one all have sources. */
function removeOrphans(root, dir = '') {
  const at = path.join(root, 'dist', dir);
  if (!fs.existsSync(at)) return;
  for (const entry of fs.readdirSync(at, { withFileTypes: true })) {
    const file = path.join(dir, entry.name);
    const compiled = /^(.+)\.js(?:\.map)?$/.exec(file);
    if (entry.isDirectory()) removeOrphans(root, file);
    else if (compiled && !fs.existsSync(path.join(root, `${compiled[1]}.ts`))) {
      fs.rmSync(path.join(root, 'dist', file), { force: true });
    }
  }
}

/** Runs a program and answers how it ended and what it said. */
function capture(command, args, cwd) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (output += chunk));
    child.on('error', (error) => resolve({ code: 1, output: error.message }));
    child.on('close', (code, signal) => resolve({ code: code ?? signal, output }));
  });
}

module.exports = { build, isBuildStale, capture, removeOrphans };
