// Runs everything that decides whether a change is good: type check, lint, and the tests, and says in its last line how it ended.
'use strict';
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { build, capture } = require('./build.cjs');
const { endMochas, runMocha } = require('./mocha-run.cjs');

const suites = {
  // A file with real servers is a run of its own. What races against the clock has the machine to itself, in the end.
  all: {
    together: ['unit', 'replay'],
    apart: 'e2e',
    alone: ['demo-act-one'],
    results: 'test-results.json',
    isLinted: true,
  },
  // What every provider promises. Not with the others, because it wants a container engine.
  providers: {
    together: ['providers'],
    apart: null,
    alone: [],
    results: 'provider-test-results.json',
    isLinted: false,
  },
};
const wholeRunLimitMs = Number(process.env.UNDERSTUDY_TEST_LIMIT_S ?? 3600) * 1000;
/** Runs side by side: most tests wait for servers most of the time. */
const lanes = Math.max(1, Number(process.env.UNDERSTUDY_TEST_LANES ?? Math.min(2, os.availableParallelism())));
const longestFailure = 1500;

/** Answers the exit code. `mochaArguments` are passed on, e.g. `--grep failover`. `suite`: all or providers. */
async function runTests(root, mochaArguments, suite = 'all') {
  const { results, isLinted } = suites[suite];
  const resultsFile = path.join(root, 'build', results);
  fs.mkdirSync(path.dirname(resultsFile), { recursive: true });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => void endMochas().then(() => process.exit(130)));
  }

  const endsAt = Date.now() + wholeRunLimitMs;
  const compiled = await check('The sources compile without a complaint', () => build(root));
  const linted = () =>
    check('The sources keep to the lint rules and the format', () => lint(root)).then((test) => [test]);
  const { beside, alone } = runsOf(root, suites[suite]);
  const jobOf = (run) => () => mochaTests(root, run, mochaArguments, endsAt);
  const [checked, ...tested] = await inLanes([isLinted ? linted : async () => [], ...beside.map(jobOf)]);
  for (const run of alone) tested.push(await jobOf(run)());
  const tests = [compiled, ...checked, ...tested.flat()];
  if (tested.flat().length === 0) tests.push(failed('Tests are found and run', 'No test was run.'));

  const count = (state) => tests.filter((test) => test.state === state).length;
  const summary = `${count('passed')} passed, ${count('failed')} failed`;
  fs.writeFileSync(resultsFile, JSON.stringify({ summary, tests }, null, 2) + '\n');
  for (const test of tests.filter(({ state }) => state === 'failed')) process.stdout.write(`${failureLine(test)}\n`);
  for (const test of tests.filter(({ state }) => state === 'skipped')) process.stdout.write(`SKIPPED ${test.title}\n`);
  process.stdout.write(`${summary}\n`);
  return count('failed') > 0 ? 1 : 0;
}

/** Does all the jobs, in this order, as many at once as there are lanes; answers what each answered. */
async function inLanes(jobs) {
  const answers = [];
  let next = 0;
  const lane = async () => {
    while (next < jobs.length) {
      const mine = next++;
      answers[mine] = await jobs[mine]();
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  return answers;
}

/** The quick ones in one run, and who breaks something hears of it soon; then the large files, so that no lane ends long after the others. */
function runsOf(root, { together, apart, alone }) {
  const dirOf = (kind) => path.join('dist', 'test', kind);
  const found = together.map(dirOf).filter((dir) => fs.existsSync(path.join(root, dir)));
  const first = { name: together.join('-'), specs: found.map((dir) => path.join(dir, '**', '*.test.js')) };
  if (apart === null || !fs.existsSync(path.join(root, dirOf(apart)))) return { beside: [first], alone: [] };
  const sizeOf = (file) => fs.statSync(path.join(root, file)).size;
  const files = fs
    .readdirSync(path.join(root, dirOf(apart)))
    .filter((file) => file.endsWith('.test.js'))
    .map((file) => path.join(dirOf(apart), file))
    .sort((a, b) => sizeOf(b) - sizeOf(a));
  const stem = (file) => path.basename(file, '.test.js');
  const missing = alone.filter((name) => !files.some((file) => stem(file) === name));
  if (missing.length > 0) throw new Error(`There is no test ${missing.join(', ')} to be run alone.`);
  const runOf = (file) => ({ name: `${apart}-${stem(file)}`, specs: [file] });
  return {
    beside: [first, ...files.filter((file) => !alone.includes(stem(file))).map(runOf)],
    alone: files.filter((file) => alone.includes(stem(file))).map(runOf),
  };
}

/** The run's tests, and one more if it was itself not in order. Its output is shown in one piece. */
async function mochaTests(root, { name, specs }, mochaArguments, endsAt) {
  const since = Date.now();
  process.stdout.write(`${name} ...\n`);
  const { tests, output, trouble } = await runMocha(root, { name, specs, mochaArguments, limitMs: endsAt - since });
  const took = `${((Date.now() - since) / 1000).toFixed(1)} s`;
  if (tests.length > 0 || trouble) process.stdout.write(`\n${name}: ${took}\n${output}`);
  if (!trouble) return tests;
  process.stdout.write(`${trouble}\n`);
  return [...tests, failed(`The run of ${name} ends by itself and in order`, trouble)];
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

/** The title and what the error says first; where it was thrown is told above. */
function failureLine({ title, error = '' }) {
  const [message] = error.split(/\n\s+at /);
  const text = message.replace(/\s+/g, ' ').trim();
  return `FAILED ${title}: ${text.length > longestFailure ? `${text.slice(0, longestFailure)} ...` : text}`;
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

module.exports = { runTests, failureLine };
