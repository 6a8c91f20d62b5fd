/**
 * A cell whose state is the log: it applies what is committed, and while it is the owner it is the one that commits.
 * Promise: an append or a register's version that was answered with 200 is kept in every failover, once and in its place,
 * and a read that does not allow staleness shows everything that was answered before it was asked.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Changelog, type ChangelogOptions, type LogRecord, type Owner } from './changelog';
import { NotOwnerError, RefusedOrderError, type Core, type Operation } from './front';
import { RegisterState, type Change } from './register-state';

interface Waiting {
  operation: Operation;
  resolve: (state: RegisterState) => void;
  reject: (error: Error) => void;
}

const mostPerCommit = 500;
/** How often an owner without work writes all the same: by it followers know how old what they have is. */
const heartbeatMs = 500;
/** What reading the rest of the log may take before a claim is given up, to be asked for again. */
const drainWithinMs = 10_000;
/** A fence that nobody follows up must not leave the service without a writer for ever. Kafka fences the late one. */
const fenceHoldsMs = 15_000;

export class ChangelogCore implements Core {
  readonly state = new RegisterState();
  private role: 'follower' | 'owner' | 'fenced' = 'follower';
  private readonly log: Changelog;
  /** The newest ownership in the log. */
  private latest: Owner | undefined;
  /** Offset after the last record that this cell committed itself; it applies those at once. */
  private committed = 0;
  private queue: Waiting[] = [];
  private pumping: Promise<void> | undefined;
  /** Orders and recoveries, one after the other. */
  private turn: Promise<unknown> = Promise.resolve();
  private following = false;
  private closed = false;
  private lastCommitMs = 0;

  constructor(
    options: ChangelogOptions,
    private readonly self: Omit<Owner, 'epoch'>,
  ) {
    this.log = new Changelog(options, (record) => this.apply(record));
  }

  async start(): Promise<void> {
    while (!this.following && !this.closed) {
      this.following = await this.log.follow().then(
        () => true,
        () => false,
      );
      if (!this.following) await sleep(300);
    }
    setInterval(() => this.beat(), heartbeatMs).unref();
    void this.resume();
  }

  isReady(): boolean {
    return this.following;
  }

  owner() {
    return this.latest && this.latest.cell !== this.self.cell ? this.latest : undefined;
  }

  dataState() {
    const owner = this.latest && { cell: this.latest.cell, address: this.latest.address, port: this.latest.port };
    return {
      cell: this.self.cell,
      role: this.role,
      epoch: this.latest?.epoch ?? 0,
      owner: owner ?? null,
      position: Math.max(this.log.position, this.committed),
      newestMs: this.log.newestMs,
    };
  }

  run(operation: Operation): Promise<RegisterState> {
    if (this.role !== 'owner') return Promise.reject(new NotOwnerError(`${this.self.cell} is not the owner`));
    return new Promise((resolve, reject) => {
      this.queue.push({ operation, resolve, reject });
      this.pump();
    });
  }

  order(what: string, { epoch }: { epoch: number }): Promise<void> {
    if (!Number.isInteger(epoch) || epoch < 1) throw new RefusedOrderError(`an epoch is a whole number from 1 on`);
    return this.inTurn(async () => {
      if (what === 'fence') await this.fence(epoch);
      else if (what === 'promote') {
        if (this.role !== 'owner' || this.latest?.epoch !== epoch) await this.claim(epoch);
      } else if (what !== 'follow') throw new RefusedOrderError(`unknown order ${what}`);
    });
  }

  async close(): Promise<void> {
    this.closed = true;
    await this.log.close();
  }

  private apply(record: LogRecord): void {
    if (record.kind === 'change') this.state.apply(record.change);
    if (record.kind !== 'owner') return;
    if (this.latest && record.owner.epoch < this.latest.epoch) return;
    this.latest = record.owner;
    if (record.owner.cell !== this.self.cell) this.stepDown('follower');
  }

  /** What has not been sent yet was surely not done. */
  private stepDown(role: 'follower' | 'fenced'): void {
    this.role = role;
    for (const { reject } of this.queue.splice(0))
      reject(new NotOwnerError(`${this.self.cell} is not the owner any more`));
  }

  /** Ends what is under way, takes nothing new. Kafka would refuse it anyway; this spares callers the unknown outcomes. */
  private async fence(epoch: number): Promise<void> {
    if (this.role !== 'owner') return;
    if ((this.latest?.epoch ?? 0) >= epoch)
      throw new RefusedOrderError(`epoch ${epoch} is not above ${this.latest?.epoch}`);
    this.stepDown('fenced');
    await this.pumping;
    setTimeout(() => {
      if (this.role === 'fenced') void this.resume();
    }, fenceHoldsMs).unref();
  }

  /**
   * Becomes the owner in this epoch. The order is what makes it safe: from the first step on nobody else can commit;
   * then everything that was committed is read; then it is seen whether a later owner was among it.
   */
  private async claim(epoch: number): Promise<void> {
    this.refuseIfLater(epoch);
    this.role = this.role === 'owner' ? 'follower' : this.role;
    await this.pumping;
    try {
      await this.log.initialiseWriter();
      await this.log.reached(await this.log.commit([{ kind: 'barrier' }]), drainWithinMs);
      this.refuseIfLater(epoch);
      this.committed = await this.log.commit([{ kind: 'owner', owner: { ...this.self, epoch } }]);
      await this.log.reached(this.committed, drainWithinMs);
    } catch (error) {
      await this.log.dropWriter();
      throw error;
    }
    this.role = 'owner';
    this.lastCommitMs = Date.now();
  }

  private refuseIfLater(epoch: number): void {
    const { latest } = this;
    if (latest && (latest.epoch > epoch || (latest.epoch === epoch && latest.cell !== this.self.cell)))
      throw new RefusedOrderError(`epoch ${epoch}: ${latest.cell} owns the log in epoch ${latest.epoch}`);
  }

  /** Takes up the ownership that the log says is this cell's: after a restart, or when a commit's outcome is unknown. */
  private resume(): Promise<void> {
    return this.inTurn(async () => {
      await this.untilQuiet();
      while (!this.closed && this.role !== 'owner' && this.latest?.cell === this.self.cell) {
        await this.claim(this.latest.epoch).catch((error: unknown) => {
          if (!(error instanceof RefusedOrderError)) return sleep(200);
        });
      }
    });
  }

  /** A log that has not been read yet may name this cell as an owner of long ago. Only sparing: `claim` looks again. */
  private async untilQuiet(): Promise<void> {
    for (let before = -1; before !== this.log.position && !this.closed;) {
      before = this.log.position;
      await sleep(700);
    }
  }

  private beat(): void {
    if (this.role !== 'owner' || this.pumping || Date.now() - this.lastCommitMs < heartbeatMs) return;
    void this.run({ kind: 'read' }).catch(() => undefined);
  }

  private pump(): void {
    this.pumping ??= this.commitQueued().finally(() => (this.pumping = undefined));
  }

  /**
   * One transaction after the other, each with all that has come meanwhile. A read takes part with a barrier: when the
   * transaction is committed nobody else had written before it, so what this cell has was current after the read began.
   */
  private async commitQueued(): Promise<void> {
    while (this.queue.length > 0 && this.role === 'owner') {
      const batch = this.queue.splice(0, mostPerCommit);
      const records = this.recordsOf(batch);
      try {
        this.committed = await this.log.commit(records.length > 0 ? records : [{ kind: 'barrier' }]);
      } catch (error) {
        // Committed or not: only the log knows. Whoever reads it to its end with a new writer will see.
        for (const { reject } of batch) reject(new Error(`the outcome is not known: ${(error as Error).message}`));
        this.stepDown('follower');
        void this.resume();
        return;
      }
      this.lastCommitMs = Date.now();
      for (const record of records) this.apply(record);
      for (const { resolve } of batch) resolve(this.state);
    }
  }

  /** Only what changes something is written: compaction keeps the last record of a key, and that must be the newest. */
  private recordsOf(batch: Waiting[]): LogRecord[] {
    const records: LogRecord[] = [];
    const appended = new Set<string>();
    const versions = new Map<string, number>();
    const isNew = (change: Change): boolean => {
      if (!this.state.wouldChange(change)) return false;
      if (change.kind === 'set') {
        if (change.version <= (versions.get(change.register) ?? 0)) return false;
        versions.set(change.register, change.version);
        return true;
      }
      const key = `${change.list} ${change.value}`;
      if (appended.has(key)) return false;
      appended.add(key);
      return true;
    };
    for (const { operation } of batch) {
      if (operation.kind === 'change' && isNew(operation.change)) records.push(operation);
    }
    return records;
  }

  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.turn.then(work);
    this.turn = mine.catch(() => undefined);
    return mine;
  }
}
