/** `understudy status` answers the first question of whoever sends telemetry: is it read? */
import { expect } from 'chai';
import type { CellRecord } from '../../blueprints/records';
import { statusText } from '../../cli/status';
import type { Score } from '../../prediction/contracts';
import { serviceDocument } from '../support/documents';

const cell = (name: string, change: Partial<CellRecord> = {}): CellRecord => ({
  ...{ name, service: 'shop', role: 'primary', zone: 'local', state: 'active', instances: [] },
  ...{ blueprint: { name: 'shop', version: 1 }, sourceCell: null, owner: null },
  ...change,
});
const score = (of: string, health: Score['health']): Score => ({
  ...{ cell: of, service: 'shop', ts: '2026-01-01T00:00:00.000Z', health, probability: { '60': 0.12 } },
  ...{ time_to_failure_s: { p10: null, p50: null, p90: null }, novelty: 0, trust: 0.9, drivers: [], model: 'm' },
});
const kafka = { telemetry: [{ topic: 'metrics' }] };

describe('The status of cells', () => {
  const known = {
    services: [{ name: 'shop', spec: serviceDocument() }],
    cells: [cell('shop-a'), cell('shop-b'), cell('shop-a-understudy-1', { role: 'synthetic', state: 'idle' })],
    shares: [{ cell: 'shop-a', shareBp: 5000, coverInstances: 0 }],
  };

  it('tells of each whether it is read, how likely it fails, and what it carries', () => {
    const scores = new Map([['shop-a', score('shop-a', 97)]]);
    const text = statusText(known, { scores, refused: new Map() }, kafka);
    expect(text).to.match(/^shop-a .* 50 % +97 +0\.12 within 60 s +read, trust 0\.90$/m);
    expect(text).to.match(/^shop-b .* 0 % +\? +none, or too little$/m);
    expect(text).to.contain('is read of shop-b. Topics: metrics.');
  });

  it('tells what was refused, and why', () => {
    const refused = new Map([['metrics: no-cell: none of the attributes', 3]]);
    const text = statusText(known, { scores: new Map([['shop-a', score('shop-a', 'unknown')]]), refused }, kafka);
    expect(text).to.contain('refused 3 times while we listened: metrics: no-cell: none of the attributes');
    expect(text).to.contain('is read of shop-a, shop-b.');
  });
});
