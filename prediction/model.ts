/** Runs the shipped model: one ONNX session, one batched run per tick, buffers used again. */
import * as ort from 'onnxruntime-node';
import { featureNames } from './feature-spec';
import { ModelRefusedError, readModelFiles, type Manifest } from './manifest';
import { parseForest, type Forest } from './forest';

export class Model {
  private input = new Float32Array(0);
  private output = new Float32Array(0);
  private capacity = 0;

  private constructor(
    readonly manifest: Manifest,
    /** Undefined if the model came without its trees. */
    readonly forest: Forest | undefined,
    private readonly session: ort.InferenceSession,
  ) {}

  /** Loads, checks and tries the model. Throws ModelRefusedError if anything does not fit. */
  static async load(manifestFile: string): Promise<Model> {
    const { manifest, onnx, trees } = readModelFiles(manifestFile);
    let session: ort.InferenceSession;
    try {
      session = await ort.InferenceSession.create(onnx, {
        executionProviders: ['cpu'],
        intraOpNumThreads: 1,
        interOpNumThreads: 1,
        executionMode: 'sequential',
        graphOptimizationLevel: 'all',
      });
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new ModelRefusedError(`${manifestFile}: ${manifest.onnx} is no model that can be run: ${reason}`, {
        cause: error,
      });
    }
    if (!session.inputNames.includes('features') || !session.outputNames.includes('hazard')) {
      throw new ModelRefusedError(
        `${manifestFile}: ${manifest.onnx} has inputs [${session.inputNames.join(', ')}] and outputs ` +
          `[${session.outputNames.join(', ')}]; expected input "features" and output "hazard".`,
      );
    }
    const forest = trees && parseForest(trees, manifest.horizonsSteps.length, featureNames.length, manifestFile);
    const model = new Model(manifest, forest, session);
    try {
      model.rows(1).fill(NaN);
      await model.run(1);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new ModelRefusedError(
        `${manifestFile}: ${manifest.onnx} does not take ${featureNames.length} features and give ` +
          `${manifest.horizonsSteps.length} hazards: ${reason}`,
        { cause: error },
      );
    }
    return model;
  }

  /** `name version`, as scores carry it. */
  get id(): string {
    return `${this.manifest.model} ${this.manifest.version}`;
  }

  get bins(): number {
    return this.manifest.horizonsSteps.length;
  }

  /** The input for `count` rows, to be written by the caller and then run. Valid until the next call. */
  rows(count: number): Float32Array {
    if (count > this.capacity) {
      this.capacity = Math.max(count, this.capacity * 2, 16);
      this.input = new Float32Array(this.capacity * featureNames.length);
      this.output = new Float32Array(this.capacity * this.bins);
    }
    return this.input.subarray(0, count * featureNames.length);
  }

  /** Hazards of the first `count` rows, `bins` per row, each within 0 and 1. Valid until the next run. */
  async run(count: number): Promise<Float32Array> {
    const features = new ort.Tensor('float32', this.rows(count), [count, featureNames.length]);
    const hazards = this.output.subarray(0, count * this.bins);
    const hazard = new ort.Tensor('float32', hazards, [count, this.bins]);
    const result = await this.session.run({ features }, { hazard });
    const data = result.hazard?.data;
    if (!(data instanceof Float32Array) || data.length !== hazards.length) {
      throw new Error(`output "hazard" has ${data?.length ?? 'no'} values, expected ${hazards.length}`);
    }
    if (data.buffer !== hazards.buffer) hazards.set(data);
    return hazards;
  }

  async release(): Promise<void> {
    await this.session.release();
  }
}
