/** A user's own telemetry and incidents as training groups: blocks of time, labels that look no further than their block. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { readOwnGroups } from '../../models/training/own-recording';
import type { RecordedGroup } from '../../models/training/recorded';
import { historySteps } from '../../prediction/feature-spec';

const t0 = Date.parse('2026-11-22T06:00:00Z');
const iso = (second: number) => new Date(t0 + second * 1000).toISOString();

describe('A recording of one’s own', () => {
  let dir: string;
  before(() => (dir = mkdtempSync(join(tmpdir(), 'understudy-own-'))));
  after(() => rmSync(dir, { recursive: true, force: true }));

  async function groupsOf(seconds: number, onsets: readonly number[], cellOfIncidents = 'shop-a') {
    const telemetry = join(dir, 'telemetry.ndjson');
    const incidents = join(dir, 'incidents.ndjson');
    const records = Array.from({ length: seconds }, (_, s) =>
      ['shop-a', 'shop-b'].map((cell) =>
        JSON.stringify({
          schema: 'understudy.telemetry/v1',
          ...{ cell, instance: `${cell}-1`, ts: iso(s), interval_s: 1 },
          metrics: { 'cpu.utilization': 0.5 },
          attrs: { service: 'shop' },
        }),
      ),
    ).flat();
    writeFileSync(telemetry, `${records.join('\n')}\n`);
    const lines = onsets.map((s) =>
      JSON.stringify({
        ...{ cell: cellOfIncidents, fault: 'memory-leak', predictable: true },
        ...{ fault_start: iso(s - 60), onset: iso(s), recovered: iso(s + 10) },
      }),
    );
    writeFileSync(incidents, `${lines.join('\n')}\n`);
    const groups: RecordedGroup[] = [];
    for await (const group of readOwnGroups({ telemetry, incidents })) groups.push(group);
    return groups;
  }

  it('is cut into blocks that hold every cell, each second once, with what its windows need before it', async () => {
    const groups = await groupsOf(1700, [200, 520, 900, 1200, 1600]);
    expect(groups.length).to.equal(4);
    expect(new Set(groups.map((g) => g.number)).size).to.equal(groups.length);
    for (const { cells } of groups) expect(cells.map((c) => c.cell)).to.deep.equal(['shop-a', 'shop-b']);
    const watched = groups
      .map(({ cells }) => cells[0])
      .map((c) => [((c?.fromMs ?? 0) - t0) / 1000, ((c?.toMs ?? 0) - t0) / 1000]);
    expect(watched).to.deep.equal([
      [0, 499],
      [500, 999],
      [1000, 1499],
      [1500, 1699],
    ]);
    const third = groups[2]?.cells[0];
    expect(((third?.samples[0]?.atMs ?? 0) - t0) / 1000).to.equal(1000 - historySteps + 1);
    expect(third?.facts.cohort).to.equal('shop');
  });

  it('shows a block no failure that comes after it', async () => {
    const groups = await groupsOf(1700, [200, 520, 900, 1200, 1600]);
    const onsets = groups.map(({ cells }) => cells[0]?.incidents.map((i) => (i.onsetMs - t0) / 1000));
    expect(onsets[0]).to.deep.equal([200]);
    expect(onsets.map((of) => Math.max(...(of ?? [])))).to.deep.equal([200, 900, 1200, 1600]);
  });

  it('with too few incidents of known cells is refused, with how many there are', async () => {
    const failure = await groupsOf(300, [100, 120, 140, 160, 180], 'stranger').catch((error: unknown) => error);
    expect(String(failure)).to.match(/0 incidents of cells with telemetry \(5 are of others\); at least 5/);
  });
});
