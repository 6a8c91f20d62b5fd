/**
 * `npm run test:chaos`: the whole reliability matrix on real servers, with progress and a closing table.
 * `--only PATTERN` of "group: title", `--seed N`, `--parallel N` (default 5), `--list`. Ctrl-C ends it early, in order.
 */
import { parseArgs } from 'node:util';
import type { StackPart } from '../../local/stack';
import { quietRuntime } from '../support/failover-bench';
import { replayHistoriesOf } from '../support/replay-histories';
import { Bench } from './bench';
import { everyRow } from './matrix';
import { OutageUnderWay, type Outage } from './outage';
import { runRow, type Gatherings, type Row, type Verdict } from './row';
import { sideBySide } from './side-by-side';
import { closingTable } from './table';

/** Services of rows that have ended stay known to the servers: now and then all begins afresh. */
const rowsPerBench = 40;

const say = (line: string): void => void process.stdout.write(`${line}\n`);

class Run {
  readonly verdicts = new Map<Row, Verdict>();
  /** What became of each server that was taken away. */
  readonly outages: string[] = [];
  replayed = 0;
  private isEnding = false;
  private readonly unreplayable: string[] = [];

  constructor(
    private readonly rows: readonly Row[],
    private readonly parallel: number,
  ) {}

  async all(): Promise<void> {
    const shared = this.rows.filter(({ outage }) => !outage);
    for (let i = 0; i < shared.length; i += rowsPerBench) {
      await this.on([], (bench) =>
        sideBySide(shared.slice(i, i + rowsPerBench), this.parallel, (row) => this.one(bench, row)),
      );
    }
    for (const outage of new Set(this.rows.flatMap((row) => row.outage ?? []))) {
      await this.on(outage.part === 'kafka' ? ['kafka'] : [], (bench) => this.during(bench, outage));
    }
  }

  beginNothingMore(): void {
    this.isEnding = true;
  }

  get failed(): number {
    return [...this.verdicts.values()].filter(({ broken }) => broken.length > 0).length + this.unreplayable.length;
  }

  private async on(also: StackPart[], work: (bench: Bench) => Promise<void>): Promise<void> {
    if (this.isEnding) return;
    const bench = await Bench.open(also);
    try {
      await work(bench);
      this.replayed += await replayHistoriesOf(bench.client);
    } catch (error) {
      this.unreplayable.push((error as Error).message);
      say(`✗ ${(error as Error).message}`);
    } finally {
      await bench.close();
    }
  }

  private async one(bench: Bench, row: Row, together?: Gatherings): Promise<void> {
    if (this.isEnding && !together) return;
    const verdict = await runRow(bench, row, together);
    this.verdicts.set(row, verdict);
    const mark = verdict.broken.length === 0 ? '✓' : '✗';
    const count = `${this.verdicts.size}/${this.rows.length}`;
    say(`${mark} ${count} ${row.title}: ${verdict.outcome} (${verdict.seconds.toFixed(1)} s)`);
    for (const words of verdict.broken) say(`    ${words}`);
  }

  /** It begins when every failover of the group can, and is over before anything is judged. */
  private async during(bench: Bench, outage: Outage): Promise<void> {
    const rows = this.rows.filter((row) => row.outage === outage);
    let underWay: OutageUnderWay | undefined;
    const begun = gathering(rows.length, async () => void (underWay = new OutageUnderWay(bench, outage)));
    const ended = gathering(rows.length, async () => underWay?.end());
    await Promise.all(rows.map((row) => this.one(bench, row, { begun, ended })));
    const times = underWay?.times === 1 ? 'once' : `${underWay?.times ?? 0} times`;
    this.outages.push(`${outage.part} was ${outage.how} ${times}`);
  }
}

/** Whoever arrives waits for the last one, and for what is done then. */
function gathering(size: number, whenAll: () => Promise<void>): () => Promise<void> {
  let arrived = 0;
  let open: () => void;
  const opened = new Promise<void>((resolve) => (open = resolve));
  return async () => {
    arrived += 1;
    if (arrived === size) await whenAll().finally(open);
    await opened;
  };
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', default: '' },
      seed: { type: 'string', default: String(Date.now() % 100_000) },
      parallel: { type: 'string', default: '5' },
      list: { type: 'boolean', default: false },
    },
  });
  const seed = Number(values.seed);
  const wanted = new RegExp(values.only, 'i');
  const rows = everyRow(seed).filter(({ title, group }) => wanted.test(`${group}: ${title}`));
  if (values.list) return rows.forEach(({ group, title }) => say(`${group}: ${title}`));
  say(`${rows.length} rows, seed ${seed}`);
  quietRuntime();
  const beganMs = Date.now();
  const run = new Run(rows, Number(values.parallel));
  // Asked to end early it finishes what is under way, and says what was not run.
  process.once('SIGINT', () => run.beginNothingMore());
  await run.all();
  say(closingTable(rows, run.verdicts));
  const seconds = ((Date.now() - beganMs) / 1000).toFixed(0);
  say([`seed ${seed}`, `${run.replayed} histories replay`, ...run.outages, `${seconds} s in all`].join('; '));
  const played =
    run.verdicts.size === rows.length ? `${rows.length} rows` : `${run.verdicts.size} of ${rows.length} rows`;
  say(run.failed === 0 ? `${played}, every promise kept` : `${run.failed} of ${played} FAILED`);
  process.exitCode = run.failed === 0 && run.verdicts.size === rows.length ? 0 : 1;
}

main().catch((error: unknown) => {
  say(String((error as Error).stack));
  process.exitCode = 1;
});
