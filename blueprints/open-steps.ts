/** Steps of splits whose proxies have not all answered yet: written with the change, so that a refusal outlives who waits. */
import type { Kysely, Transaction } from 'kysely';
import type { TrafficChange } from './records';
import type { Tables } from './tables';

export interface OpenStep {
  service: string;
  epoch: number;
  /** The control plane that waits for the proxies, and takes the epoch back if one refuses it. */
  replica: string;
  /** The change was a person's decision, and so is taking it back: made even while the fleet is stopped. */
  override: boolean;
}

export class OpenSteps {
  constructor(private readonly db: Kysely<Tables>) {}

  async list(): Promise<OpenStep[]> {
    const rows = await this.db.selectFrom('open_steps').selectAll().orderBy('service').execute();
    return rows.map((row) => ({ ...row, epoch: Number(row.epoch) }));
  }

  /** Makes the step another control plane's. False if somebody else was faster, or it has ended. */
  async adopt({ service, epoch, replica }: OpenStep, heir: string): Promise<boolean> {
    const adopted = await this.db
      .updateTable('open_steps')
      .set({ replica: heir })
      .where('service', '=', service)
      .where('epoch', '=', String(epoch))
      .where('replica', '=', replica)
      .executeTakeFirst();
    return adopted.numUpdatedRows > 0n;
  }

  /** The proxies have answered, or their time is up. Nothing happens to a step that is another's by now. */
  async close(service: string, epoch: number, replica: string): Promise<void> {
    await this.db
      .deleteFrom('open_steps')
      .where('service', '=', service)
      .where('epoch', '=', String(epoch))
      .where('replica', '=', replica)
      .execute();
  }
}

/** In the change's own transaction: whatever was open of the service's epochs before is over with it. */
export async function openStep(trx: Transaction<Tables>, change: TrafficChange, epoch: number): Promise<void> {
  const { service, carriedBy: replica, override = false } = change;
  if (replica === undefined) {
    await trx.deleteFrom('open_steps').where('service', '=', service).execute();
    return;
  }
  const row = { epoch, replica, override };
  await trx
    .insertInto('open_steps')
    .values({ service, ...row })
    .onConflict((oc) => oc.column('service').doUpdateSet(row))
    .execute();
}
