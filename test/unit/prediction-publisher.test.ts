/** Dead letters that always fit, and which failures are worth another try. */
import { expect } from 'chai';
import { bareLetterRecord, letterRecord, type DeadLetter } from '../../prediction/dead-letter';
import { isContentRefused } from '../../prediction/publisher';

const letter = (original: Partial<DeadLetter>): DeadLetter => ({
  reason: 'unknown-format',
  detail: 'neither JSON nor OTLP',
  topic: 'telemetry',
  partition: 3,
  offset: 77,
  decoder: 'detect',
  seenAtMs: 1_795_328_800_000,
  key: null,
  value: null,
  headers: {},
  ...original,
});
const brokerTakes = 1_000_000;
const bytesOf = ({ key, value, headers }: ReturnType<typeof letterRecord>): number =>
  Object.entries(headers)
    .flatMap(([name, values]) => [values].flat().map((v) => name.length + 10 + Buffer.byteLength(v)))
    .reduce((sum, n) => sum + n, (key?.length ?? 0) + (value?.length ?? 0));

describe('Dead letter', () => {
  it('keeps key, value and headers of an ordinary record, and says where it lies', () => {
    const record = letterRecord(letter({ key: Buffer.from('k'), value: Buffer.from('v'), headers: { a: ['1', '2'] } }));
    expect(String(record.key)).to.equal('k');
    expect(String(record.value)).to.equal('v');
    expect(record.headers).to.include({ 'understudy-topic': 'telemetry', 'understudy-offset': '77' });
    expect(record.headers['a']).to.deep.equal(['1', '2']);
  });

  it('fits wherever a record of a mebibyte has its bytes: in value, key or headers', () => {
    const large = Buffer.alloc(1_040_000, 120);
    const half = large.subarray(0, 520_000);
    const many = Object.fromEntries(Array.from({ length: 90_000 }, (_, i) => [`h${i}`, 'x']));
    const originals: Partial<DeadLetter>[] = [
      { value: large },
      { key: large },
      { headers: { h: large } },
      { headers: { h: [half, half] } },
      { headers: many },
      { key: half, value: half },
    ];
    for (const original of originals) expect(bytesOf(letterRecord(letter(original)))).to.be.below(brokerTakes);
  });

  it('lets the headers go before it cuts, and says what is missing', () => {
    const value = Buffer.alloc(800_000, 120);
    const withHeaders = letterRecord(letter({ value, headers: { h: Buffer.alloc(200_000, 120) } }));
    expect(withHeaders.value?.length).to.equal(800_000);
    expect(withHeaders.headers).to.include({ 'understudy-dropped-headers': '1' });
    const cut = letterRecord(letter({ value: Buffer.alloc(1_000_000, 120), key: Buffer.alloc(200_000, 120) }));
    expect(cut.headers).to.include({
      'understudy-truncated-from-bytes': '1000000',
      'understudy-key-truncated-from-bytes': '200000',
    });
  });

  it('can be written if a header of the original has no value', () => {
    const headers = { h: null as unknown as Buffer };
    expect(letterRecord(letter({ headers })).headers['h']).to.equal('');
  });

  it('holds nothing of the original when that is refused, but still names it', () => {
    const record = bareLetterRecord(letter({ key: Buffer.from('k'), value: Buffer.from('v'), headers: { a: '1' } }));
    expect(record.key).to.equal(null);
    expect(record.value).to.equal(null);
    expect(record.headers).to.include({ 'understudy-reason': 'unknown-format', 'understudy-offset': '77' });
    expect(record.headers).to.not.have.property('a');
  });

  it('is tried again bare only if its bytes were refused, not if the broker is away', () => {
    const tooLarge = Object.assign(new Error('too large'), { type: 'MESSAGE_TOO_LARGE', retriable: false });
    expect(isContentRefused(tooLarge)).to.equal(true);
    expect(isContentRefused(new Error('not retriable', { cause: tooLarge }))).to.equal(true);
    // kafkajs calls this one not retriable as well: its own tries are used up.
    const away = Object.assign(new Error('connect ECONNREFUSED'), { retriable: false });
    expect(isContentRefused(new Error('retries exceeded', { cause: away }))).to.equal(false);
  });
});
