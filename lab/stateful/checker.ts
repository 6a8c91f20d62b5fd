/**
 * Judges a recorded history of appends and registers by rules that are each necessary for what the services promise.
 *
 * The idea of judging only by what clients saw, with three outcomes (ok, failed, unknown), is Jepsen's
 * (https://jepsen.io/consistency; K. Kingsbury, P. Alvaro, "Elle", VLDB 2020, for lists of unique appends from which the
 * order of writes can be read). "Before" is real time: an operation is before another if it was answered before the
 * other was asked (M. Herlihy, J. Wing, "Linearizability", TOPLAS 1990).
 */
import type { History, HistoryEntry } from './history';

export type Rule =
  | 'lost-append'
  | 'duplicate'
  | 'phantom'
  | 'order-changed'
  | 'stale-list'
  | 'stale-register'
  | 'register-went-back'
  | 'wrong-value'
  | 'nothing-checked';

export interface Violation {
  rule: Rule;
  /** One sentence: what was seen and what it contradicts. */
  text: string;
}

type Of<K extends HistoryEntry['kind']> = Extract<HistoryEntry, { kind: K }>;

/** Empty if the history keeps every promise. The history must end with a current read of each list and register. */
export function checkHistory(history: History): Violation[] {
  const lists = groups(history, 'append', 'list', 'read-list');
  const registers = groups(history, 'set', 'register', 'read-register');
  const violations = [
    ...[...lists].flatMap(([list, { writes, reads }]) =>
      checkList(list, writes as Of<'append'>[], reads as Of<'read-list'>[]),
    ),
    ...[...registers].flatMap(([name, { writes, reads }]) =>
      checkRegister(name, writes as Of<'set'>[], reads as Of<'read-register'>[]),
    ),
  ];
  if (lists.size + registers.size === 0) violations.push({ rule: 'nothing-checked', text: 'the history is empty' });
  return violations;
}

function checkList(list: string, appends: Of<'append'>[], allReads: Of<'read-list'>[]): Violation[] {
  const reads = allReads.filter(({ outcome }) => outcome === 'ok');
  const current = reads.filter(({ mayBeStale }) => !mayBeStale).sort((a, b) => a.endMs - b.endMs);
  const last = current.at(-1);
  const lastWrite = Math.max(0, ...appends.map(({ endMs }) => endMs));
  if (!last || last.startMs < lastWrite)
    return [{ rule: 'nothing-checked', text: `${list}: no current read came after the last append` }];
  return [
    ...lostAppends(list, appends, last),
    ...duplicates(list, reads),
    ...phantoms(list, appends, reads),
    ...changedOrder(list, reads, last),
    ...staleLists(list, appends, current),
  ];
}

/** An append that was answered with ok is in the last list. Source: the promise itself; Jepsen's `set-full` calls it lost. */
function lostAppends(list: string, appends: Of<'append'>[], last: Of<'read-list'>): Violation[] {
  const kept = new Set(last.values);
  return appends
    .filter(({ outcome, value }) => outcome === 'ok' && !kept.has(value))
    .map(({ value, cell }) => ({
      rule: 'lost-append',
      text: `${list}: ${value} was acknowledged by ${cell} and is gone`,
    }));
}

/** No list holds a value twice, however often it was sent. Source: the promise that repeating an append changes nothing. */
function duplicates(list: string, reads: Of<'read-list'>[]): Violation[] {
  const twice = new Set(reads.flatMap(({ values }) => values.filter((value, at) => values.indexOf(value) !== at)));
  return [...twice].map((value) => ({ rule: 'duplicate', text: `${list}: ${value} is there more than once` }));
}

/**
 * Nothing is read that nobody asked for, or whose every attempt surely failed, or before it was asked for. Source: Elle's
 * "garbage reads" and "aborted reads" (G1a of A. Adya's thesis, MIT 1999).
 */
function phantoms(list: string, appends: Of<'append'>[], reads: Of<'read-list'>[]): Violation[] {
  const possible = new Map<string, number>();
  for (const { value, outcome, startMs } of appends) {
    if (outcome !== 'failed') possible.set(value, Math.min(startMs, possible.get(value) ?? Infinity));
  }
  const strange = new Set<string>();
  for (const { values, endMs } of reads) {
    for (const value of values) if (!((possible.get(value) ?? Infinity) <= endMs)) strange.add(value);
  }
  return [...strange].map((value) => ({
    rule: 'phantom',
    text: `${list}: ${value} was read and cannot have been written`,
  }));
}

/**
 * Every list that was ever read, a stale one too, is a beginning of the last. Source: Elle's "incompatible order": reads
 * of one append-only list that are not prefixes of each other have no common history.
 */
function changedOrder(list: string, reads: Of<'read-list'>[], last: Of<'read-list'>): Violation[] {
  return reads
    .filter(({ values }) => values.some((value, at) => last.values[at] !== value))
    .map(({ cell, values }) => ({
      rule: 'order-changed',
      text: `${list}: ${cell} answered ${values.length} values that are no beginning of the last list`,
    }));
}

/**
 * A read that promises to be current shows every append that was acknowledged before it was asked, and is no shorter
 * than any current read that was answered before. Source: linearizability of a single object (Herlihy and Wing).
 */
function staleLists(list: string, appends: Of<'append'>[], current: Of<'read-list'>[]): Violation[] {
  const acknowledged = appends.filter(({ outcome }) => outcome === 'ok').sort((a, b) => a.endMs - b.endMs);
  return current.flatMap((read) => {
    const has = new Set(read.values);
    const missing = acknowledged.find(({ endMs, value }) => endMs < read.startMs && !has.has(value));
    const longer = current.find(({ endMs, values }) => endMs < read.startMs && values.length > read.values.length);
    const words = missing
      ? `lacks ${missing.value}, acknowledged ${(read.startMs - missing.endMs).toFixed(0)} ms before`
      : longer && `has ${read.values.length} values where ${longer.values.length} had been read before`;
    return words ? [{ rule: 'stale-list' as const, text: `${list}: a current read by ${read.cell} ${words}` }] : [];
  });
}

function checkRegister(name: string, sets: Of<'set'>[], allReads: Of<'read-register'>[]): Violation[] {
  const reads = allReads.filter(({ outcome }) => outcome === 'ok').sort((a, b) => a.startMs - b.startMs);
  const current = reads.filter(({ mayBeStale }) => !mayBeStale);
  return [...wrongValues(name, sets, reads), ...staleRegisters(name, sets, current), ...backwards(name, current)];
}

/** A version is read with the value that was written with it, and not before it was. Source: as for phantoms. */
function wrongValues(name: string, sets: Of<'set'>[], reads: Of<'read-register'>[]): Violation[] {
  return reads
    .filter(
      ({ version, value, endMs }) =>
        version > 0 &&
        !sets.some(
          (set) => set.version === version && set.value === value && set.outcome !== 'failed' && set.startMs <= endMs,
        ),
    )
    .map(({ cell, version, value }) => ({
      rule: 'wrong-value',
      text: `${name}: ${cell} read "${value}" as version ${version}`,
    }));
}

/** A current read shows no version below one that was acknowledged before it was asked. Source: Herlihy and Wing. */
function staleRegisters(name: string, sets: Of<'set'>[], current: Of<'read-register'>[]): Violation[] {
  return current.flatMap((read) => {
    const newest = Math.max(
      0,
      ...sets.filter(({ outcome, endMs }) => outcome === 'ok' && endMs < read.startMs).map(({ version }) => version),
    );
    if (read.version >= newest) return [];
    const text = `${name}: ${read.cell} answered version ${read.version} when ${newest} had been acknowledged`;
    return [{ rule: 'stale-register' as const, text }];
  });
}

/** Of two current reads, one after the other, the later shows no older version. Source: Herlihy and Wing. */
function backwards(name: string, current: Of<'read-register'>[]): Violation[] {
  return current.flatMap((read) => {
    const before = current.find(({ endMs, version }) => endMs < read.startMs && version > read.version);
    if (!before) return [];
    const text = `${name}: version ${before.version} had been read, then ${read.cell} answered ${read.version}`;
    return [{ rule: 'register-went-back' as const, text }];
  });
}

/** Writes and reads of each list or register. */
function groups(history: History, write: string, key: 'list' | 'register', read: string) {
  const found = new Map<string, { writes: HistoryEntry[]; reads: HistoryEntry[] }>();
  for (const entry of history) {
    if (entry.kind !== write && entry.kind !== read) continue;
    const name = (entry as unknown as Record<typeof key, string>)[key];
    const group = found.get(name) ?? { writes: [], reads: [] };
    (entry.kind === write ? group.writes : group.reads).push(entry);
    found.set(name, group);
  }
  return found;
}
