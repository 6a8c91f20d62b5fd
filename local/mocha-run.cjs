// One run of mocha over some files: in a group of its own, bounded in time, ended with all it started, its results in a file.
'use strict';
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const endAfterLastTestMs = 20_000;
const running = new Set();

/**
 * Answers its tests, what it said, and what was wrong with the run as a whole (null: it ended in order, whatever its tests
 * said). `name` is that of the results file; `limitMs` bounds it.
 */
async function runMocha(root, { name, specs, mochaArguments, limitMs }) {
  const resultsFile = path.join(root, 'build', `mocha-${name}.json`);
  fs.rmSync(resultsFile, { force: true });
  // mocha's own command would put another process between, which could not be talked to.
  // By its real path: through a link to node_modules it would not know that it is the program.
  const mocha = fs.realpathSync(path.join(root, 'node_modules', 'mocha', 'lib', 'cli', 'cli.js'));
  const args = [
    '--enable-source-maps',
    mocha,
    // A configuration file would add all specs once more.
    '--no-config',
    ...['--timeout', '20000', '--forbid-only', process.stdout.isTTY ? '--color' : '--no-color'],
    ...['--reporter', path.join(__dirname, 'mocha-reporter.cjs')],
    ...['replay-every-history', 'whole-messages'].flatMap((each) => [
      '--require',
      path.join(root, 'dist', 'test', 'support', `${each}.js`),
    ]),
    ...mochaArguments,
    ...specs,
  ];
  const child = spawn(process.execPath, args, {
    cwd: root,
    env: { ...process.env, UNDERSTUDY_TEST_RESULTS: resultsFile },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    // A group of its own, so that a run that hangs can be ended with all it started.
    detached: true,
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
  const ended = new Promise((resolve) => {
    child.on('error', (error) => resolve({ error }));
    child.on('exit', (code, signal) => resolve({ code, signal }));
  });
  const run = { child, ended };
  running.add(run);

  let trouble = null;
  let timer = setTimeout(giveUp, limitMs, `The tests were not over after ${Math.round(limitMs / 1000)} s.`);
  child.on('message', ({ stage }) => {
    if (stage !== 'end') return;
    clearTimeout(timer);
    timer = setTimeout(
      giveUp,
      endAfterLastTestMs,
      'A test left something open: the run did not end after its last test.',
    );
  });
  function giveUp(reason) {
    trouble = reason;
    void endGroup(run);
  }

  const { code, signal, error } = await ended;
  clearTimeout(timer);
  // What a test spawned in the run's own group and left behind.
  await endGroup(run);
  running.delete(run);
  const results = readResults(resultsFile);
  if (error) trouble ??= `mocha could not be started: ${error.message}`;
  if (results?.finished !== true)
    trouble ??= `mocha ended before its tests were over (${signal ?? `exit code ${code}`}).`;
  return { tests: results?.tests ?? [], output, trouble };
}

/** Ends whatever still runs. */
async function endMochas() {
  await Promise.all([...running].map(endGroup));
}

/** SIGTERM to the group, and SIGKILL if it takes no notice. Stacks of the run are cleaned up by their reapers. */
async function endGroup({ child, ended }) {
  if (child.pid === undefined) return;
  const send = (signal) => {
    try {
      process.kill(-child.pid, signal);
      return true;
    } catch {
      return false;
    }
  };
  if (!send('SIGTERM')) return;
  const deadline = Date.now() + 8_000;
  while (send(0)) {
    if (Date.now() > deadline) send('SIGKILL');
    if (Date.now() > deadline + 5_000) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await ended;
}

function readResults(file) {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8'));
  } catch {
    return null;
  }
}

module.exports = { runMocha, endMochas };
