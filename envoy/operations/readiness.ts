/** Whether this control plane can serve proxies, and how well: what `/livez` and `/readyz` answer. */

export interface ReadinessSources {
  /** Whether everything in the store has been read and published once. */
  hasPublished: () => boolean;
  /** Whether the xDS and the traffic port accept connections. */
  isListening: () => boolean;
  isStopping: () => boolean;
  /** Seconds since the store was last read, and why the last attempt failed. */
  storeAgeS: () => number | undefined;
  storeProblem: () => string | undefined;
  /** What else is not as it should be while proxies are served: a sentence each. */
  concerns: () => string[];
}

export interface Readiness {
  status: 'ready' | 'degraded' | 'not ready';
  /** Sentences: why it is not simply ready. */
  reasons: string[];
}

/** The store is read every three seconds; three readings missed are no accident. */
const storeStaleAfterS = 10;

/**
 * Without the store a control plane is degraded, not unready: proxies keep their streams and their last good
 * configuration, and taking all replicas out of rotation at once, as a partition from Postgres would, helps nobody.
 * Changes to traffic fail meanwhile, with a status that says to retry.
 */
export function readiness(sources: ReadinessSources): Readiness {
  const missing: string[] = [];
  if (sources.isStopping()) missing.push('it is stopping');
  if (!sources.hasPublished()) {
    const why = sources.storeProblem();
    missing.push(`the Configuration Data Store has not been read yet${why ? `: ${why}` : ''}`);
  }
  if (!sources.isListening()) missing.push('its ports are not open yet');
  if (missing.length > 0) return { status: 'not ready', reasons: missing };

  const reasons = sources.concerns();
  const ageS = sources.storeAgeS() ?? 0;
  if (ageS > storeStaleAfterS) {
    const why = sources.storeProblem() ?? 'a reading does not come to an end';
    reasons.unshift(
      `the Configuration Data Store was last read ${Math.round(ageS)} s ago (${why}); proxies keep what they have, no change is taken`,
    );
  }
  return { status: reasons.length > 0 ? 'degraded' : 'ready', reasons };
}
