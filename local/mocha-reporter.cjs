// mocha's spec reporter, which also writes what happened to a JSON file (UNDERSTUDY_TEST_RESULTS) and tells its parent when it is done.
'use strict';
const fs = require('node:fs');
const { Runner, reporters } = require('mocha');

const { EVENT_TEST_PASS, EVENT_TEST_FAIL, EVENT_TEST_PENDING, EVENT_RUN_END } = Runner.constants;

class ResultsReporter extends reporters.Spec {
  constructor(runner, options) {
    super(runner, options);
    this.results = { finished: false, tests: [] };
    runner.on(EVENT_TEST_PASS, (test) => this.add(test, 'passed'));
    runner.on(EVENT_TEST_PENDING, (test) => this.add(test, 'skipped'));
    runner.on(EVENT_TEST_FAIL, (test, error) => this.add(test, 'failed', error));
    runner.once(EVENT_RUN_END, () => {
      this.results.finished = true;
      this.write();
      followParent('end');
      sayWhatIsOpen();
    });
    followParent('begin');
  }

  add(test, state, error) {
    this.results.tests.push({
      title: test.fullTitle(),
      state,
      durationMs: test.duration ?? 0,
      ...(error && { error: error.stack ?? String(error) }),
    });
    // After each test: a run that is killed leaves what it knew.
    this.write();
  }

  write() {
    const file = process.env.UNDERSTUDY_TEST_RESULTS;
    if (file) fs.writeFileSync(file, JSON.stringify(this.results, null, 2));
  }
}

/** Tells the parent how far the run is, and ends with the parent: nobody would read the rest. */
function followParent(stage) {
  if (!process.send) return;
  if (stage === 'begin') process.on('disconnect', () => process.exit(1));
  // The channel alone must not keep the run alive, or a leak could not be told from it.
  process.channel.unref();
  process.send({ stage });
}

function sayWhatIsOpen() {
  const timer = setTimeout(() => {
    console.error(`The tests are over, but something is still open: ${process.getActiveResourcesInfo().join(', ')}`);
  }, 5_000);
  timer.unref();
}

module.exports = ResultsReporter;
