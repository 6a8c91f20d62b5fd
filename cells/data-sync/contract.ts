/**
 * What a stateful cell answers about its data, by HTTP at the path that its blueprint names. Understudy believes none of
 * it where Kafka or Postgres can be asked instead; it is how a cell is told what to do.
 *
 *   GET  <path>           who it is, what it has applied, whom it takes for the owner
 *   POST <path>/fence     {"epoch"}: acknowledge nothing more; answers the state (kind kafka-changelog only)
 *   POST <path>/promote   {"epoch"}: become the owner, after everything that was acknowledged; answers the state (the same)
 *   POST <path>/follow    {"owner": "<host>:<port>", "epoch"}: begin to follow that database (kind postgres only)
 */
import { z } from 'zod';
import type { Instance } from '../../blueprints/schema';
import { request, type Target } from '../http';
import type { TargetTls } from '../identity/target-tls';

export const dataStateSchema = z.object({
  cell: z.string(),
  /** follower: applies what the owner writes. owner: takes writes. fenced: neither; it waits to be told. */
  role: z.enum(['follower', 'owner', 'fenced']),
  /** The highest epoch of ownership that it has seen in the data. */
  epoch: z.number().int().min(0),
  /** Who owns that epoch; null before anybody has. */
  owner: z.object({ cell: z.string(), address: z.string(), port: z.number().int() }).nullable(),
  /** Everything before it has been applied: an offset of the log, or a position in the WAL as a number. */
  position: z.number().min(0),
  /** When the newest change that it has applied was written, in milliseconds since 1970; null without any. */
  newestMs: z.number().nullable(),
  /** host:port of its database, for kind postgres. */
  database: z.string().optional(),
});

export type DataState = z.infer<typeof dataStateSchema>;

/** A cell and where it can be asked. The first instance is the one that writes while the cell is the owner. */
export interface DataCell {
  name: string;
  instances: readonly Pick<Instance, 'address' | 'port'>[];
}

/** The cell answered, and said no: asking the same again will not help. */
export class DataRefusedError extends Error {
  override readonly name = 'DataRefusedError';
}

/** No usable answer. Whether anything was done is not known; every order may be given again. */
export class DataUnreachableError extends Error {
  override readonly name = 'DataUnreachableError';
}

export interface Order {
  what: 'fence' | 'promote' | 'follow';
  epoch: number;
  owner?: string;
}

/** By the cell's name; undefined for a cell without an identity. */
export type TlsOf = (cell: string) => Promise<TargetTls | undefined>;

export class CellDataClient {
  constructor(
    private readonly path: string,
    private readonly timeoutMs: number,
    /** How to speak to a cell that has an identity. */
    private readonly tlsOf: TlsOf = () => Promise.resolve(undefined),
  ) {}

  state(cell: DataCell): Promise<DataState> {
    return this.ask(cell, this.path, undefined);
  }

  /** False also where it does not answer. */
  isOwner(cell: DataCell): Promise<boolean> {
    return this.state(cell).then(
      ({ role }) => role === 'owner',
      () => false,
    );
  }

  order(cell: DataCell, { what, ...body }: Order): Promise<DataState> {
    return this.ask(cell, `${this.path}/${what}`, body);
  }

  private async send(target: Target, cell: string, path: string, call: { method?: 'POST'; body?: unknown }) {
    const tls = await this.tlsOf(cell);
    return request({ ...target, tls }, path, { ...call, timeoutMs: this.timeoutMs });
  }

  private async ask(cell: DataCell, path: string, body: unknown): Promise<DataState> {
    const [writer] = cell.instances;
    if (!writer) throw new DataUnreachableError(`${cell.name} has no instance that could be asked ${path}`);
    const call = body === undefined ? {} : { method: 'POST' as const, body };
    const { address, port } = writer;
    const answer = await this.send({ address, port }, cell.name, path, call).catch((error: unknown) => {
      const { message, code } = error as NodeJS.ErrnoException;
      throw new DataUnreachableError(`${cell.name} ${path}: ${message || code}`);
    });
    const said = `${cell.name} ${path} answered ${answer.status} ${answer.body.slice(0, 300)}`;
    if (answer.status === 409) throw new DataRefusedError(said);
    if (answer.status !== 200) throw new DataUnreachableError(said);
    const state = dataStateSchema.safeParse(parsed(answer.body));
    if (!state.success) throw new DataUnreachableError(`${said}: ${z.prettifyError(state.error)}`);
    if (state.data.cell !== cell.name)
      throw new DataUnreachableError(`${cell.name} ${path}: another cell answered, ${state.data.cell}`);
    return state.data;
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
