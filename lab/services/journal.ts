/**
 * The lab's service on a disk: each request appends an entry to a journal of segment files that rotate. Knobs: `bytes` of
 * an entry (8192), `keepBytes` of the journal (4 MiB), `segmentBytes` (an eighth of it), `fsyncEvery` appends (8).
 */
import { appendFile, unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AnswerError, knob, quantile, readInstanceConfig, runService } from './harness';
import type { Harness, InstanceConfig, ServiceDefinition } from './harness';
import { Segments } from './segments';
import { SlowDisk } from './slow-disk';

const junkTickMs = 100;

/** The fault `disk-fill`: a file that grows and that no rotation knows. When the disk is full it goes on trying. */
class Junk {
  private timer: NodeJS.Timeout | undefined;
  private writing: Promise<void> = Promise.resolve();

  constructor(private readonly path: string) {}

  set(bytesPerSecond: number, release: boolean): void {
    clearInterval(this.timer);
    if (release) this.afterwards(() => unlink(this.path));
    if (bytesPerSecond <= 0) return;
    const chunk = Buffer.alloc(Math.max(1, Math.round((bytesPerSecond * junkTickMs) / 1000)), 1);
    this.timer = setInterval(() => this.afterwards(() => appendFile(this.path, chunk)), junkTickMs);
  }

  private afterwards(act: () => Promise<void>): void {
    // A full disk is what was ordered, and a file that never came to be need not be removed.
    this.writing = this.writing.then(act).catch(() => undefined);
  }
}

export function journalService(config: InstanceConfig): ServiceDefinition {
  const dir = config.dir ?? join(tmpdir(), `lab-${config.instance}-${process.pid}`);
  const keepBytes = knob(config, 'keepBytes', 4 * 1024 * 1024);
  const segments = new Segments({
    dir,
    keepBytes,
    segmentBytes: knob(config, 'segmentBytes', keepBytes / 8),
    fsyncEvery: knob(config, 'fsyncEvery', 8),
  });
  const entry = Buffer.alloc(knob(config, 'bytes', 8192), 'journal entry\n');
  const junk = new Junk(join(dir, 'junk'));
  let disk: SlowDisk;
  let writesS: number[] = [];
  let bytesWritten = 0;

  async function append(hold: Harness['hold']): Promise<void> {
    const beganAt = performance.now();
    const delayMs = disk.delayMs(beganAt);
    if (delayMs > 0) await hold(delayMs);
    try {
      await segments.append(entry);
      bytesWritten += entry.length;
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      throw new AnswerError(code === 'ENOSPC' ? 507 : 500, message);
    } finally {
      writesS.push((performance.now() - beganAt) / 1000);
    }
  }

  return {
    async start({ random }) {
      disk = new SlowDisk(random);
      await segments.prepare();
    },
    async work(key, ctx) {
      await ctx.hold(ctx.drawServiceMs());
      await append((ms) => ctx.hold(ms));
      return { key, bytes: entry.length };
    },
    metrics(elapsedS) {
      const latency = quantile(writesS, 0.99);
      const rate = bytesWritten / elapsedS;
      writesS = [];
      bytesWritten = 0;
      return { 'disk.write_rate': rate, ...(latency === undefined ? {} : { 'disk.write_latency_s': latency }) };
    },
    faults: {
      'disk-fill': (bytesPerSecond, release) => junk.set(bytesPerSecond, release),
      'disk-slow': (meanExtraS) => disk.set(meanExtraS),
    },
  };
}

if (require.main === module) {
  const config = readInstanceConfig();
  runService(config, journalService(config));
}
