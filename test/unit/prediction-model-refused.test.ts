/** What is not the model that was trained, whole and for these features, is refused before it scores anything. */
import { createHash } from 'node:crypto';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { packageRoot } from '../../package-root';
import { ModelRefusedError } from '../../prediction/manifest';
import { Model } from '../../prediction/model';

const shipped = join(packageRoot, 'models');
type Manifest = Record<string, unknown> & { onnx: string; trees: string };

describe('A model that is not whole', () => {
  let dir: string;
  let manifest: Manifest;

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'understudy-refused-'));
    manifest = JSON.parse(readFileSync(join(shipped, 'manifest.json'), 'utf8')) as Manifest;
    for (const file of [manifest.onnx, manifest.trees]) copyFileSync(join(shipped, file), join(dir, file));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  async function refusal(text = JSON.stringify(manifest)): Promise<string> {
    writeFileSync(join(dir, 'manifest.json'), text);
    try {
      await (await Model.load(join(dir, 'manifest.json'))).release();
    } catch (error) {
      expect(error).to.be.instanceOf(ModelRefusedError);
      return (error as Error).message;
    }
    return 'not refused';
  }
  const change = (file: string, edit: (content: Buffer) => Buffer) => {
    const content = edit(readFileSync(join(dir, file)));
    writeFileSync(join(dir, file), content);
    return createHash('sha256').update(content).digest('hex');
  };
  const flipMiddle = (content: Buffer) => {
    const copy = Buffer.from(content);
    copy[copy.length >> 1] = (copy[copy.length >> 1] as number) ^ 1;
    return copy;
  };
  const half = (content: Buffer) => content.subarray(0, content.length >> 1);

  it('is taken as it was shipped', async () => {
    expect(await refusal()).to.equal('not refused');
  });

  it('is refused with one bit changed in the network or the trees', async () => {
    for (const file of [manifest.onnx, manifest.trees]) {
      change(file, flipMiddle);
      expect(await refusal(), file).to.match(/do not belong together/);
      change(file, flipMiddle);
    }
  });

  it('is refused when cut off, even if the manifest was given the hash of what is left', async () => {
    manifest.onnxSha256 = change(manifest.onnx, half);
    expect(await refusal()).to.match(/no model that can be run/);
    copyFileSync(join(shipped, manifest.onnx), join(dir, manifest.onnx));
    manifest.onnxSha256 = change(manifest.onnx, (content) => content);
    manifest.treesSha256 = change(manifest.trees, half);
    expect(await refusal()).to.match(/tree dump cannot be read/);
  });

  it('is refused with a manifest that is cut off, lacks a hash, or comes without the trees it names', async () => {
    const text = JSON.stringify(manifest);
    expect(await refusal(text.slice(0, text.length / 2))).to.match(/manifest cannot be read/);
    expect(await refusal(JSON.stringify({ ...manifest, onnxSha256: undefined }))).to.match(/onnxSha256/);
    expect(await refusal(JSON.stringify({ ...manifest, treesSha256: undefined }))).to.match(/none given/);
    rmSync(join(dir, manifest.trees));
    expect(await refusal()).to.match(/cannot be read/);
  });

  it('is refused, as a challenger too, when it was trained on other features, with what to do about it', async () => {
    manifest.featureSpecSha256 = '0'.repeat(64);
    expect(await refusal()).to.match(/trained on feature specification 0{12}.*Train the model again/s);
  });
});
