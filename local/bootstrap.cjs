// Where a fresh clone begins: `node local/bootstrap.cjs setup|demo|test|test:providers|understudy [arguments]` checks what the machine has,
// gets what is missing, builds, and runs what was asked for. Plain CommonJS without dependencies: nothing is installed yet.
'use strict';
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const root = path.dirname(__dirname);
const programs = { demo: 'dist/lab/demo/demo.js', understudy: 'dist/cli/understudy.js' };

async function main([goal, ...args]) {
  if (!['setup', 'demo', 'test', 'test:providers', 'understudy'].includes(goal)) {
    throw new Complaint('Usage: node local/bootstrap.cjs setup|demo|test|test:providers|understudy [arguments]');
  }
  // An old result must not be taken for this run's.
  const results = { test: 'test-results.json', 'test:providers': 'provider-test-results.json' }[goal];
  if (results) fs.rmSync(path.join(root, 'build', results), { force: true });
  await getReady();
  if (results) {
    // The tests build for themselves: there a type error is a failed test among others.
    process.exitCode = await require('./run-tests.cjs').runTests(root, args, goal === 'test' ? 'all' : 'providers');
    return;
  }
  await ensureBuilt();
  if (goal === 'setup') say('Understudy is set up. Next: npm run demo, npm test, or npm run understudy -- --help');
  else process.exitCode = await runProgram(programs[goal], args);
}

/** Gets packages and servers, unless all are there; then it touches neither the network nor the disk. */
async function getReady() {
  await checkPrerequisites(['node']);
  const { areModulesMissing, installModules, linkPostgresLibraries } = require('./node-modules.cjs');
  const { fetchParts, missingParts } = require('./fetch-parts.cjs');
  const partsDir = path.join(root, '.parts');
  const isComplete = () => !areModulesMissing(root) && missingParts(root, partsDir).length === 0;
  if (isComplete()) {
    await checkPrerequisites(['java']);
  } else {
    // All of them before the first download: who lacks three things should not find out one by one.
    await checkPrerequisites(['npm', 'python', 'pip', 'java', 'maven']);
    await alone(path.join(partsDir, 'setup.lock'), async () => {
      if (areModulesMissing(root)) await step('npm packages, by npm ci', () => installModules(root));
      await fetchParts(root, partsDir, step);
    });
  }
  await linkPostgresLibraries(root);
}

async function checkPrerequisites(names) {
  const missing = await require('./prerequisites.cjs').missingPrerequisites(names);
  if (missing.length > 0) throw new Complaint(missing.join('\n'));
}

async function ensureBuilt() {
  const { build, isBuildStale } = require('./build.cjs');
  if (!isBuildStale(root)) return;
  await step('build, by tsc', async () => {
    const complaints = await build(root);
    if (complaints) throw new Complaint(`The sources do not compile:\n${complaints}`);
  });
}

/** Does the work while no other set-up of this checkout runs; the lock of a killed one does not count. */
async function alone(lockFile, work) {
  const { takeLock, releaseLock } = require('./pid-lock.cjs');
  for (let told = false; ;) {
    const owner = takeLock(lockFile);
    if (owner === null) break;
    if (!told) say(`Another set-up runs here (pid ${owner}); waiting for it.`);
    told = true;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  try {
    await work();
  } finally {
    releaseLock(lockFile);
  }
}

async function step(title, work) {
  const since = Date.now();
  say(`${title} ...`);
  await work();
  say(`${title}: done in ${((Date.now() - since) / 1000).toFixed(1)} s`);
}

/** Runs a program of ours in the foreground and answers its exit code. */
function runProgram(program, args) {
  const file = path.join(root, program);
  if (!fs.existsSync(file)) throw new Complaint(`${program} is missing: this version has no such program.`);
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ['--enable-source-maps', file, ...args], { stdio: 'inherit' });
    // The program decides how it ends. Ctrl-C reaches it from the terminal; a signal sent to this process is passed on.
    process.on('SIGINT', () => undefined);
    for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
    child.on('error', (error) => {
      say(error.message);
      resolve(1);
    });
    child.on('close', (code, signal) => resolve(code ?? (signal === 'SIGINT' ? 130 : 1)));
  });
}

/** Progress goes to standard error: standard output belongs to the program that was asked for. */
function say(line) {
  process.stderr.write(`${line}\n`);
}

/** Something the person can mend; it needs no stack trace. */
class Complaint extends Error {}

main(process.argv.slice(2)).catch((error) => {
  // A stack trace helps only where the fault is ours.
  const isForPeople = error instanceof Complaint || error.constructor === Error;
  say(isForPeople ? error.message : (error.stack ?? String(error)));
  process.exitCode = 1;
});
