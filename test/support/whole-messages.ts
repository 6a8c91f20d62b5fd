/** Loaded with every run of the tests: a failed comparison says what was seen, which may be all that is kept of a run. */
import { config } from 'chai';

/** Characters of a value in a message; at 40, as it comes, a list of what went wrong is `[ Array(2) ]`. */
config.truncateThreshold = 1_000;
