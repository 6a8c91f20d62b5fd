/** Asks the store for something, but not for ever, and says what is known when it does not answer. */
import { isStoreFailure } from '../blueprints/connection';
import { OverdueError, within } from './deadline';
import { StoreUnavailableError } from './traffic-errors';

/** A commit that is not answered within this is reported as unknown. */
export const commitWithinMs = 5000;

export class PatientStore {
  constructor(
    /** Why the store cannot be used now; undefined if it can. */
    private readonly problem: () => string | undefined,
  ) {}

  /** @param known what holds, whatever the store would have answered, as a part of a sentence. */
  async asked<T>(answer: Promise<T>, known: string, withinMs = commitWithinMs): Promise<T> {
    const problem = this.problem();
    if (problem) {
      answer.catch(() => undefined);
      throw new StoreUnavailableError(`${problem}; ${known}; try again with the same idempotency key`);
    }
    try {
      return await within(answer, withinMs, 'the Configuration Data Store does not answer');
    } catch (error) {
      // What the store has refused, and our own mistakes, are told as what they are.
      if (!(error instanceof OverdueError) && !isStoreFailure(error)) throw error;
      throw new StoreUnavailableError(
        `${(error as Error).message}; ${known}; try again with the same idempotency key`,
        { cause: error },
      );
    }
  }
}
