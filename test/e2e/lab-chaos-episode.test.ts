import { expect } from 'chai';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { incidentsOf } from '../../lab/chaos/episode-file';
import { missingMeans, runEpisode, writePart } from '../../lab/chaos/episode-runner';
import { labRunsDir } from '../../lab/chaos/limits';
import { planEpisode, type EpisodePlan } from '../../lab/chaos/plan';
import { ChaosFolder, readRecording, type RecordedEpisode } from '../../lab/chaos/recording-folder';
import { variantsOf } from '../../lab/chaos/services';

/** One cell of a service that needs no server, with a heap that is full a few seconds after the load began. */
function shortLeak(): EpisodePlan {
  const variant = variantsOf('sessions')[0]!;
  const plan = planEpisode(1, 1);
  const [cell] = plan.cells;
  return {
    ...plan,
    variant,
    stepMs: 500,
    settleS: 1,
    durationS: 60,
    afterOnsetS: 2,
    callers: { retries: 0, timeoutMs: 1500 },
    cells: [
      {
        ...cell!,
        load: { shape: 'steady', mean: 15, swing: 0, periodS: 60, phase: 0 },
        proxied: true,
        gaps: [],
        lookAlikes: [],
        faults: [
          {
            name: 'memory-leak',
            startS: 4,
            endS: undefined,
            orders: [{ atS: 4, kind: 'heap-leak', level: 6e6 }],
            shape: 'linear',
            mechanism: 'heap-leak',
            expectedS: 6,
            predictable: true,
            shownBy: 'heap.used_bytes',
          },
        ],
      },
    ],
  };
}

describe('An episode of the chaos lab', () => {
  let dir: string;
  beforeEach(() => (dir = mkdtempSync(join(tmpdir(), 'lab-chaos-'))));
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  it('ends soon after the failure that callers measured, is written whole and read back, and leaves nothing behind', async function () {
    this.timeout(120_000);
    const plan = shortLeak();
    const missing = missingMeans(plan);
    if (missing !== undefined) {
      process.stderr.write(`Skipped: ${missing}\n`);
      this.skip();
    }
    const run = `${process.pid}-1`;
    const part = await runEpisode(plan, run, {}, new AbortController().signal);

    const [incident] = incidentsOf(part);
    expect(incident?.fault).to.equal('memory-leak');
    expect(incident?.predictable).to.equal(true);
    const incubationS = (Date.parse(incident!.onset) - Date.parse(incident!.fault_start)) / 1000;
    expect(incubationS).to.be.within(1, 40);
    // The heap is seen to fill before anything fails, however soon a slow machine's callers see the failure.
    const heapsWhile = (from: string, to: string): number[] =>
      part.telemetry
        .filter(({ ts }) => ts >= from && ts < to)
        .flatMap(({ metrics }) => metrics['heap.used_bytes'] ?? []);
    const healthy = heapsWhile('', incident!.fault_start);
    const filling = heapsWhile(incident!.fault_start, incident!.onset);
    expect(Math.max(...filling)).to.be.above(Math.max(...healthy));
    const last = part.telemetry.at(-1)!;
    for (const metric of ['cpu.utilization', 'memory.used_bytes', 'fd.used', 'network.rtt_s'] as const) {
      expect(part.telemetry[5]?.metrics, metric).to.have.property(metric);
    }
    expect(last.attrs.service).to.equal(plan.deployment);

    const folder = new ChaosFolder(dir);
    writePart(folder.partOf(plan.number), part);
    expect(folder.has(plan.number)).to.equal(true);
    const { kept, leftOut } = await folder.assemble('the command', 4);
    expect(leftOut.size).to.equal(0);
    expect(kept).to.have.length(1);
    const read: RecordedEpisode[] = [];
    for await (const episode of readRecording(dir)) read.push({ ...episode });
    expect(read).to.deep.equal([
      { description: part.description, incidents: [incident], measured: part.measured, telemetry: part.telemetry },
    ]);
    expect(readFileSync(join(dir, 'README.md'), 'utf8')).to.include('| memory-leak | 1 | 1 |');

    expect(existsSync(join(labRunsDir, run))).to.equal(false);
    expect(readFileSync('/proc/mounts', 'utf8')).not.to.include(run);
    const commands = readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map((pid) => {
        try {
          return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
        } catch {
          return '';
        }
      });
    expect(commands.filter((command) => command.includes(plan.cells[0]!.name))).to.deep.equal([]);
  });
});
