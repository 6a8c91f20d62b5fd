import { expect } from 'chai';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadOwnSettings } from '../../local/own-settings';

describe('A person’s settings for a local stack', () => {
  const dir = mkdtempSync(join(tmpdir(), 'understudy-own-settings-'));
  const file = join(dir, 'own.yaml');
  after(() => rmSync(dir, { recursive: true }));

  const loaded = (text: string) => {
    writeFileSync(file, text);
    return loadOwnSettings(file);
  };

  it('are what it says, without what it leaves to the stack', () => {
    expect(loaded('')).to.deep.equal({});
    const text = 'kafka: { scoresTopic: shop.scores }\ncells: { lookEveryS: 60 }';
    expect(loaded(text)).to.deep.equal({ kafka: { scoresTopic: 'shop.scores' }, cells: { lookEveryS: 60 } });
  });

  for (const [what, text, words] of [
    ['addresses that the stack fills in', 'kafka: { brokers: ["a:1"] }', 'kafka.brokers: is filled in by the stack'],
    ['a setting that there is not', 'cells: { lookEvery: 60 }', 'cells: Unrecognized key: "lookEvery"'],
    ['a section that there is not', 'cell: {}', '(top): Unrecognized key: "cell"'],
    ['a value of another type', 'logLevel: loud', 'logLevel: Invalid option'],
    ['a section of another type', 'postgres: none', 'postgres: Invalid input: expected object'],
    ['what is no YAML', 'cells: [', 'Flow sequence'],
    ['what is no settings', '- cells', '(top): expected sections of settings'],
  ] as const)
    it(`are refused with file, path and reason for ${what}`, () =>
      expect(() => loaded(text)).to.throw(`${file}: ${words}`));
});
