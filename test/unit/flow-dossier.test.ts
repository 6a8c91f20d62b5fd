/** A failover read from its history alone: dossier, risks and page, without a server or a worker. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { historyFromJSON } from '@temporalio/common/lib/proto-utils';
import { expect } from 'chai';
import { replayedDossier } from '../../cli/failover/replayed-dossier';
import { storyPage } from '../../cli/failover/page';
import { keptIn, risksOf } from '../../cli/failover/story';
import { asText } from '../../cli/failover/text';
import { details } from '../../workflows/current-details';
import { dossierOf } from '../../workflows/dossier';
import { intend, record } from '../../workflows/record';
import { goldenHistories, quietRuntime } from '../support/failover-bench';
import { World } from '../support/failover-world';

const failover = 'failover/shop/shop-a';
const golden = (name: string) => {
  const file = readdirSync(goldenHistories).find((f) => f.startsWith(name))!;
  return historyFromJSON(JSON.parse(readFileSync(join(goldenHistories, file), 'utf8')));
};

describe('A dossier', function () {
  this.timeout(60_000);
  before(quietRuntime);

  it('is read from a closed history as it was kept, and whatever came after', async () => {
    const history = golden('tells-each-decision');
    const kept = keptIn(history)!;
    const replayed = await replayedDossier(history, failover);
    expect(replayed.outcome).to.equal('aborted');
    expect(replayed.steps).to.deep.equal(kept.steps);
    expect(replayed.entries.slice(0, kept.entries.length)).to.deep.equal(kept.entries);
  });

  it('is read from a history that has only begun, as far as it goes', async () => {
    const history = golden('tells-each-decision');
    const armCompleted = history.events!.findIndex(
      (e) => e.activityTaskScheduledEventAttributes?.activityType?.name === 'shiftTraffic',
    );
    const dossier = await replayedDossier({ ...history, events: history.events!.slice(0, armCompleted) }, failover);
    expect(dossier.outcome).to.equal(null);
    expect(dossier.phaseTimes.map((p) => p.phase)).to.include('armed');
    expect(dossier.steps).to.deep.equal([]);
  });

  it('has every risk that the run was told, in the order of time', () => {
    const history = golden('tells-each-decision');
    const risks = risksOf(keptIn(history)!, history);
    expect(risks.map((r) => r.level)).to.include('shift');
    expect(risks.map((r) => r.at)).to.deep.equal(risks.map((r) => r.at).sort());
  });

  it('becomes a page that needs nothing from elsewhere and takes nothing it shows for markup', () => {
    const history = golden('fails-over-step-by-step');
    const kept = keptIn(history)!;
    const entries = [...kept.entries, { ...kept.entries[0]!, what: '<script>alert(1)</script>' }];
    const page = storyPage({ dossier: { ...kept, entries }, from: 'history', risks: risksOf(kept, history) });
    expect(page).to.not.match(/<script|(src|href)=/);
    expect(page).to.contain('shop-a-understudy-1').and.contain('failed-over');
    expect(page).to.not.contain('NaN').and.not.contain('undefined');
    expect((page.match(/<circle[^>]*r="8.5"/g) ?? []).length, 'a mark for each decision').to.equal(entries.length);
  });

  it('tells what each step of a warm-up measured, wherever it is read', () => {
    const world = new World();
    const step = world.until((s) => s.kind === 'warm', { risk: 'shift' });
    const steps = [
      { kind: 'probe', text: 'p95 12 ms against 10 ms', ok: true, tookMs: 430 },
      { kind: 'mirror', text: '<none> copied', ok: null },
    ];
    const result = { passed: true, summary: 'as its peers', evidence: { steps } };
    const warmed = record(intend(world.failover, step, world.nowMs), step, { kind: 'warmed', result }, world.nowMs);
    const dossier = dossierOf(warmed);
    const page = storyPage({ dossier, from: 'run', risks: [] });
    for (const text of [details(warmed, step), asText(dossier), page]) {
      expect(text).to.contain('probe, ok after 0.4 s: p95 12 ms against 10 ms');
      expect(text).to.contain('mirror, not judged: ');
    }
    expect(page).not.to.contain('<none>');
  });

  it('can be drawn before anything has happened', () => {
    const kept = keptIn(golden('fails-over-step-by-step'))!;
    const bare = { ...kept, steps: [], entries: [], phaseTimes: [], syntheticCell: null, endedAt: null, outcome: null };
    const page = storyPage({
      dossier: { ...bare, firstRisk: null, lastRisk: null, reason: null },
      from: 'run',
      risks: [],
    });
    expect(page).to.contain('No traffic was moved').and.not.contain('NaN');
    expect(asText({ ...bare, drill: { id: 'd', shareBp: 100 } })).to.match(/^DRILL shop \/ shop-a/);
  });
});
