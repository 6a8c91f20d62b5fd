/** Puts together what one reading of a producer spread over several records: the states of a CPU, the disks of a host. */
import { clockSetBackMs } from './series';

export type Parts = ReadonlyMap<string, number>;

export interface CompleteRound {
  /** The latest time of its parts. */
  atMs: number;
  parts: Parts;
}

interface Round {
  firstMs: number;
  atMs: number;
  parts: Map<string, number>;
  /** How many of the expected parts are in. */
  present: number;
  isDone: boolean;
}

interface Group {
  /** Oldest first. */
  open: Round[];
  closed: number;
  /** The parts that make a round whole, each with the number of the last closed round that had it. */
  expected: Map<string, number>;
  doneMs: number;
}

/** A round is kept open while the next one fills: records of several partitions do not come in order. */
const openRounds = 2;
/** A part that was missing from this many closed rounds is no longer waited for. */
const forgottenAfter = 2;
const maxPartsPerGroup = 2_000;

/**
 * What belongs to a reading is learned from the readings before: a round is handed out as soon as everything is in that
 * was in one of the last rounds. A round that stays without some of it is not handed out at all: a missing value does
 * less harm than a wrong one. Bounded; the groups not heard of for longest are forgotten.
 */
export class Rounds {
  private readonly groups = new Map<string, Group>();
  private parts = 0;

  constructor(private readonly maxParts = 200_000) {}

  get size(): number {
    return this.parts;
  }

  /**
   * Adds a part; NaN says that it is there without a value yet. Answers the round that it completes, 'late' for a
   * duplicate or what comes too late, else undefined. Parts within `toleranceMs` of a round's first belong to it.
   */
  put(key: string, part: string, atMs: number, value: number, toleranceMs: number): CompleteRound | 'late' | undefined {
    const group = this.groupOf(key, atMs);
    const round = this.roundOf(group, atMs, toleranceMs);
    if (!round || round.parts.has(part)) return 'late';
    if (round.parts.size >= maxPartsPerGroup) return 'late';
    round.parts.set(part, value);
    this.parts += 1;
    round.atMs = Math.max(round.atMs, atMs);
    if (group.expected.has(part)) round.present += 1;
    this.evict();
    if (round.isDone || group.expected.size === 0 || round.present < group.expected.size) return undefined;
    round.isDone = true;
    if (round.atMs <= group.doneMs) return undefined;
    group.doneMs = round.atMs;
    return { atMs: round.atMs, parts: round.parts };
  }

  private groupOf(key: string, atMs: number): Group {
    let group = this.groups.get(key);
    const newest = group?.open[group.open.length - 1];
    if (group && newest && atMs <= newest.firstMs - clockSetBackMs) {
      this.forget(key, group);
      group = undefined;
    }
    group ??= { open: [], closed: 0, expected: new Map(), doneMs: -Infinity };
    // Taken out and put in again, so that the map's order is the order of use.
    this.groups.delete(key);
    this.groups.set(key, group);
    return group;
  }

  /** The open round of that time, a new one, or undefined if its round is over. */
  private roundOf(group: Group, atMs: number, toleranceMs: number): Round | undefined {
    const { open } = group;
    const found = open.find((round) => Math.abs(round.firstMs - atMs) <= toleranceMs);
    if (found) return found;
    const newest = open[open.length - 1];
    if (newest && atMs < newest.firstMs && (open.length >= openRounds || group.closed > 0)) return undefined;
    const round: Round = { firstMs: atMs, atMs, parts: new Map(), present: 0, isDone: false };
    open.push(round);
    open.sort((a, b) => a.firstMs - b.firstMs);
    if (open.length > openRounds) this.close(group);
    return round;
  }

  private close(group: Group): void {
    const round = group.open.shift();
    if (!round) return;
    this.parts -= round.parts.size;
    group.closed += 1;
    for (const part of round.parts.keys()) group.expected.set(part, group.closed);
    for (const [part, seen] of group.expected) {
      if (seen <= group.closed - forgottenAfter) group.expected.delete(part);
    }
    for (const open of group.open) {
      open.present = 0;
      for (const part of open.parts.keys()) if (group.expected.has(part)) open.present += 1;
    }
  }

  private forget(key: string, group: Group): void {
    this.groups.delete(key);
    for (const round of group.open) this.parts -= round.parts.size;
  }

  private evict(): void {
    if (this.parts <= this.maxParts && this.groups.size <= this.maxParts) return;
    for (const [key, group] of this.groups) {
      if (this.parts <= this.maxParts && this.groups.size <= this.maxParts) return;
      this.forget(key, group);
    }
  }
}
