/**
 * What the docker provider knows of its cells, kept in the engine itself. Labels of a container never change, so what does
 * (owner, lease, destruction begun) is a row of records, each an empty volume whose labels say it: the one with the highest
 * number counts. A number is taken once, which makes every change a compare-and-swap.
 *
 *   volume understudy.<installation>.<cell>.<number>
 */
import { randomBytes } from 'node:crypto';
import type Docker from 'dockerode';
import type { BlueprintDocument } from '../blueprints/schema';

export const label = (name: string) => `understudy.dev/${name}`;

/** What a record says, and what each container of the cell repeats as it was when it was made. */
export interface CellLabels {
  cell: string;
  service: string;
  owner: string;
  blueprint: BlueprintDocument;
  /** A cell that is made again after its destruction has another one. */
  run: string;
  expiresAt?: string;
  isBeingDestroyed?: boolean;
  /** Ids of the containers that were ended on purpose, so that the cell rests: decided while they ran. */
  stopped?: readonly string[];
}

export interface CellRecordOfEngine extends CellLabels {
  /** 0: there is no record, only containers that tell. */
  number: number;
}

export function newRun(): string {
  return randomBytes(6).toString('hex');
}

export class DockerRecords {
  constructor(
    private readonly engine: Docker,
    private readonly installation: string,
  ) {}

  /** The newest record of the cell. */
  async newest(cell: string): Promise<CellRecordOfEngine | undefined> {
    return (await this.all(cell)).at(-1);
  }

  /** Every cell that has a record. */
  async cells(): Promise<string[]> {
    const volumes = await this.volumes([`${label('installation')}=${this.installation}`]);
    return volumes.flatMap(({ Labels }) => Labels?.[label('cell')] ?? []);
  }

  /**
   * Writes the record that follows `base` (undefined: the first). Answers what then counts: this record, or what somebody
   * else wrote meanwhile, or undefined if the cell was destroyed meanwhile.
   */
  async follow(
    base: CellRecordOfEngine | undefined,
    labels: CellLabels,
  ): Promise<{ isOurs: boolean; newest: CellRecordOfEngine | undefined }> {
    const number = (base?.number ?? 0) + 1;
    const nonce = newRun();
    const wanted = {
      Name: this.nameOf(labels.cell, number),
      Labels: { ...this.written(labels), [label('record')]: String(number), [label('nonce')]: nonce },
    };
    // Of a name that is taken, engines answer the volume that is there; Podman at the same moment: that it exists.
    await this.engine.createVolume(wanted).catch((error: Error) => {
      if (!/already exists/.test(error.message)) throw error;
    });
    const volumes = await this.volumesOf(labels.cell);
    const ours = volumes.find(({ Labels }) => Labels?.[label('nonce')] === nonce);
    const records = volumes.map(({ Labels }) => this.read(Labels ?? {})).sort((a, b) => a.number - b.number);
    const newest = records.at(-1);
    if (!ours) return { isOurs: false, newest };
    // Older records go only once a newer one is there. If ours stands alone, the cell was destroyed to the end meanwhile.
    const isBaseGone =
      base !== undefined && base.number > 0 && !records.some((record) => record.number === base.number);
    if (newest?.number !== number || isBaseGone) {
      await this.remove(labels.cell, number);
      return { isOurs: false, newest: await this.newest(labels.cell) };
    }
    for (const older of records.slice(0, -1)) await this.remove(older.cell, older.number);
    return { isOurs: true, newest };
  }

  /** Forgets a run of the cell; the record that tells of its destruction goes last. */
  async forget(cell: string, run: string): Promise<void> {
    for (const record of await this.all(cell)) if (record.run === run) await this.remove(cell, record.number);
  }

  /** The labels that say this. */
  written(labels: CellLabels): Record<string, string> {
    const { cell, service, owner, blueprint, run, expiresAt, isBeingDestroyed, stopped = [] } = labels;
    return {
      [label('installation')]: this.installation,
      [label('cell')]: cell,
      [label('service')]: service,
      [label('owner')]: owner,
      [label('run')]: run,
      [label('blueprint')]: JSON.stringify(blueprint),
      ...(expiresAt !== undefined && { [label('expires-at')]: expiresAt }),
      ...(isBeingDestroyed && { [label('destroyed')]: 'true' }),
      ...(stopped.length > 0 && { [label('stopped')]: stopped.join(' ') }),
    };
  }

  read(labels: Record<string, string>): CellRecordOfEngine {
    const of = (name: string) => labels[label(name)] ?? '';
    const expiresAt = of('expires-at');
    return {
      cell: of('cell'),
      service: of('service'),
      owner: of('owner'),
      blueprint: JSON.parse(of('blueprint')) as BlueprintDocument,
      run: of('run'),
      number: Number(of('record') || 0),
      ...(expiresAt !== '' && { expiresAt }),
      ...(of('destroyed') === 'true' && { isBeingDestroyed: true }),
      ...(of('stopped') !== '' && { stopped: of('stopped').split(' ') }),
    };
  }

  private async all(cell: string): Promise<CellRecordOfEngine[]> {
    const volumes = await this.volumesOf(cell);
    return volumes.map(({ Labels }) => this.read(Labels ?? {})).sort((a, b) => a.number - b.number);
  }

  private volumesOf(cell: string) {
    return this.volumes([`${label('installation')}=${this.installation}`, `${label('cell')}=${cell}`]);
  }

  private async volumes(labels: string[]): Promise<{ Labels?: Record<string, string> | null }[]> {
    const { Volumes } = await this.engine.listVolumes({ filters: JSON.stringify({ label: labels }) });
    // Some engines answer what has any of the labels, some what has all.
    return ((Volumes ?? []) as { Labels?: Record<string, string> | null }[]).filter(({ Labels }) =>
      labels.every((wanted) => {
        const [name, ...value] = wanted.split('=');
        return Labels?.[name!] === value.join('=');
      }),
    );
  }

  private async remove(cell: string, number: number): Promise<void> {
    await this.engine
      .getVolume(this.nameOf(cell, number))
      .remove()
      .catch((error: { statusCode?: number }) => {
        if (error.statusCode !== 404) throw error;
      });
  }

  private nameOf(cell: string, number: number): string {
    return `understudy.${this.installation}.${cell}.${number}`;
  }
}
