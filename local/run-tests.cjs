// Runs everything that decides whether a change is good: type check, lint, and the tests, and says in its last line how it ended.
'use strict';
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { build, capture } = require('./build.cjs');

const suites = {
  // From the quick to the slow: who breaks something should hear of it soon.
  all: { kinds: ['unit', 'replay', 'e2e'], results: 'test-results.json', isLinted: true },
  // What every provider promises. Apart, because it wants a container engine.
  providers: { kinds: ['providers'], results: 'provider-test-results.json', isLinted: false },
};
const wholeRunLimitMs = Number(process.env.UNDERSTUDY_TEST_LIMIT_S ?? 3600) * 1000;
const endAfterLastTestMs = 20_000;

/** Answers the exit code. `mochaArguments` are passed on, e.g. `--grep failover`. `suite`: all or providers. */
async function runTests(root, mochaArguments, suite = 'all') {
  const { kinds, results, isLinted } = suites[suite];
  const resultsFile = path.join(root, 'build', results);
  const mochaFile = path.join(root, 'build', 'mocha-results.json');
  fs.mkdirSync(path.dirname(resultsFile), { recursive: true });
  fs.rmSync(mochaFile, { force: true });

  const checks = await Promise.all([
    check('The sources compile without a complaint', () => build(root)),
    ...(isLinted ? [check('The sources keep to the lint rules and the format', () => lint(root))] : []),
  ]);
  const trouble = await runMocha(root, mochaFile, kinds, mochaArguments);
  const tests = [...checks, ...readTests(mochaFile)];
  if (tests.length === checks.length) tests.push(failed('Tests are found and run', 'No test was run.'));
  if (trouble) tests.push(failed('The test run ends by itself and in order', trouble));

  const count = (state) => tests.filter((test) => test.state === state).length;
  const summary = `${count('passed')} passed, ${count('failed')} failed`;
  fs.writeFileSync(resultsFile, JSON.stringify({ summary, tests }, null, 2) + '\n');
  for (const test of tests.filter(({ state }) => state === 'failed')) process.stdout.write(`FAILED ${test.title}\n`);
  for (const test of tests.filter(({ state }) => state === 'skipped')) process.stdout.write(`SKIPPED ${test.title}\n`);
  process.stdout.write(`${summary}\n`);
  return count('failed') > 0 ? 1 : 0;
}

/** A check counts as one test; `look` answers its complaints. */
async function check(title, look) {
  const since = Date.now();
  const complaints = await look();
  const durationMs = Date.now() - since;
  process.stdout.write(`  ${complaints ? '✗' : '✓'} ${title} (${(durationMs / 1000).toFixed(1)} s)\n`);
  if (!complaints) return { title, state: 'passed', durationMs };
  process.stdout.write(`${complaints}\n`);
  return { ...failed(title, complaints), durationMs };
}

function failed(title, error) {
  return { title, state: 'failed', durationMs: 0, error };
}

async function lint(root) {
  const complaints = [];
  for (const [program, ...args] of [
    ['eslint/bin/eslint.js', '.', '--max-warnings', '0'],
    ['prettier/bin/prettier.cjs', '--check', '--log-level', 'warn', '.'],
  ]) {
    const { code, output } = await capture(process.execPath, [path.join(root, 'node_modules', program), ...args], root);
    if (code !== 0) complaints.push(output.trim() || `${program} ended with ${code}`);
  }
  return complaints.join('\n');
}

/** Answers what was wrong with the run as a whole; null if it ended in order, whatever its tests said. */
async function runMocha(root, resultsFile, kinds, mochaArguments) {
  const specs = kinds
    .map((kind) => path.join('dist', 'test', kind))
    .filter((dir) => fs.existsSync(path.join(root, dir)))
    .map((dir) => path.join(dir, '**', '*.test.js'));
  const options = ['--forbid-only', '--reporter', path.join(__dirname, 'mocha-reporter.cjs')];
  // mocha's own command would put another process between, which could not be talked to.
  // By its real path: through a link to node_modules it would not know that it is the program.
  const mocha = fs.realpathSync(path.join(root, 'node_modules', 'mocha', 'lib', 'cli', 'cli.js'));
  // A configuration file would add all specs once more.
  const args = [
    '--enable-source-maps',
    mocha,
    '--no-config',
    '--timeout',
    '20000',
    ...options,
    '--require',
    path.join(root, 'dist', 'test', 'support', 'replay-every-history.js'),
    ...mochaArguments,
    ...specs,
  ];
  const child = spawn(process.execPath, args, {
    cwd: root,
    env: { ...process.env, UNDERSTUDY_TEST_RESULTS: resultsFile },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    // A group of its own, so that a run that hangs can be ended with all it started.
    detached: true,
  });
  const ended = new Promise((resolve) => {
    child.on('error', (error) => resolve({ error }));
    child.on('exit', (code, signal) => resolve({ code, signal }));
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => void endGroup(child, ended).then(() => process.exit(130)));
  }

  let trouble = null;
  let timer = setTimeout(giveUp, wholeRunLimitMs, `The tests were not over after ${wholeRunLimitMs / 1000} s.`);
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
    process.stdout.write(`${reason} Ending it.\n`);
    void endGroup(child, ended);
  }

  const { code, signal, error } = await ended;
  clearTimeout(timer);
  // What a test spawned in the run's own group and left behind.
  await endGroup(child, ended);
  if (trouble) return trouble;
  if (error) return `mocha could not be started: ${error.message}`;
  const isComplete = readResults(resultsFile)?.finished === true;
  return isComplete ? null : `mocha ended before its tests were over (${signal ?? `exit code ${code}`}).`;
}

/** SIGTERM to the group, and SIGKILL if it takes no notice. Stacks of the run are cleaned up by their reapers. */
async function endGroup(child, ended) {
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

function readTests(file) {
  return readResults(file)?.tests ?? [];
}

module.exports = { runTests };
