/** The memory of the decoders whose readings come in pieces: counters become rates, parts become canonical values. */
import { combine, partName, type GroupName } from './combine';
import { Rounds, type Parts } from './rounds';
import { SeriesStore } from './series';
import type { Identity, SampleSink } from './sink';

/** Where one measurement goes: a value of a group, from an owner within it. */
export interface Route {
  group: GroupName;
  role?: string;
  owner?: string;
  /** The value only grows; its rate per second is taken. */
  counter?: boolean;
  /** Brings the value (or its rate) to the unit of the metric. */
  scale?: number;
}

export class Assembler {
  constructor(
    private readonly series: SeriesStore = new SeriesStore(),
    private readonly rounds: Rounds = new Rounds(),
  ) {}

  /** Whether what comes next depends on what came before. */
  get remembers(): boolean {
    return this.series.seriesCount > 0 || this.rounds.size > 0;
  }

  /**
   * Takes one measurement. `source` tells it from others of the same producer that go to the same place, `toleranceMs`
   * is how far apart the parts of one reading are stamped.
   */
  add(
    sink: SampleSink,
    id: Identity,
    route: Route,
    source: string,
    atMs: number,
    value: number,
    toleranceMs = 0,
  ): void {
    const { group, role = '', owner = '', counter = false, scale = 1 } = route;
    const who = `${id.cell}\u0000${id.instance}\u0000${group}`;
    let reading = value;
    if (counter && Number.isFinite(value)) {
      if (value < 0) return sink.object('out-of-range', `${source}: a counter of ${value} is below 0`);
      const rate = this.series.rate(`${who}\u0000${role}\u0000${owner}\u0000${source}`, atMs, value);
      if (rate === undefined) return sink.ignore('not-newer');
      reading = rate;
    }
    const round = this.rounds.put(who, partName(role, owner), atMs, reading * scale, toleranceMs);
    if (round === 'late') sink.ignore('not-newer');
    else if (round) combine(group, round.parts, (metric, result) => sink.emit(id, round.atMs, metric, result, source));
  }

  /** The growth per second of a counter; undefined (and counted) where there is none to tell. */
  rate(sink: SampleSink, id: Identity, source: string, atMs: number, value: number): number | undefined {
    if (!Number.isFinite(value)) return undefined;
    if (value < 0) {
      sink.object('out-of-range', `${source}: a counter of ${value} is below 0`);
      return undefined;
    }
    const rate = this.series.rate(`${id.cell}\u0000${id.instance}\u0000${source}`, atMs, value);
    if (rate === undefined) sink.ignore('not-newer');
    return Number.isNaN(rate) ? undefined : rate;
  }

  /** Takes a reading that is whole in its record. */
  whole(sink: SampleSink, id: Identity, group: GroupName, parts: Parts, source: string, atMs: number): void {
    combine(group, parts, (metric, value) => sink.emit(id, atMs, metric, value, source));
  }
}
