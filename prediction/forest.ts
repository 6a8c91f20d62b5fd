/** The model's trees and their exact attribution: TreeSHAP with the trees' own cover (path-dependent). */
import { z } from 'zod';
import { ModelRefusedError } from './manifest';

/** One tree as flat arrays; node 0 is the root, a leaf has feature -1. */
export interface Tree {
  feature: Int32Array;
  threshold: Float64Array;
  /** Where a missing value goes. */
  missingLeft: Uint8Array;
  left: Int32Array;
  right: Int32Array;
  /** Training rows that came through the node. */
  cover: Float64Array;
  value: Float64Array;
  depth: number;
}

/** One booster per hazard bin; the hazard is sigmoid(scale * sum of trees + offset). */
export interface Forest {
  bins: { scale: number; offset: number; trees: Tree[] }[];
}

/** A node as LightGBM's `dump_model()` writes it; everything else in the dump is left out of the file. */
type DumpedNode =
  | { leaf_value: number; leaf_count?: number | undefined }
  | {
      split_feature: number;
      threshold: number;
      decision_type: '<=';
      default_left: boolean;
      missing_type: 'None' | 'NaN';
      internal_count: number;
      left_child: DumpedNode;
      right_child: DumpedNode;
    };

const node: z.ZodType<DumpedNode> = z.lazy(() =>
  z.union([
    z.object({
      split_feature: z.number().int().min(0),
      threshold: z.number(),
      decision_type: z.literal('<='),
      default_left: z.boolean(),
      missing_type: z.enum(['None', 'NaN']),
      internal_count: z.number(),
      left_child: node,
      right_child: node,
    }),
    z.object({ leaf_value: z.number(), leaf_count: z.number().optional() }),
  ]),
);

/** `{"bins": [{"scale", "offset", "trees": [<tree_structure>, ...]}, ...]}`, one entry per hazard bin. */
const dumpSchema = z.object({
  bins: z.array(z.object({ scale: z.number(), offset: z.number(), trees: z.array(node) })),
});

export function parseForest(json: Buffer, bins: number, featureCount: number, where: string): Forest {
  let parsed: z.infer<typeof dumpSchema>;
  try {
    parsed = dumpSchema.parse(JSON.parse(json.toString('utf8')));
  } catch (error) {
    const reason = error instanceof z.ZodError ? z.prettifyError(error).slice(0, 300) : String(error);
    throw new ModelRefusedError(`${where}: the tree dump cannot be read: ${reason}`, { cause: error });
  }
  if (parsed.bins.length !== bins) {
    throw new ModelRefusedError(`${where}: the tree dump has ${parsed.bins.length} bins, the model ${bins}.`);
  }
  const forest = {
    bins: parsed.bins.map(({ scale, offset, trees }) => ({ scale, offset, trees: trees.map(flatten) })),
  };
  const highest = Math.max(
    ...forest.bins.flatMap((b) => b.trees.map((t) => t.feature.reduce((a, f) => Math.max(a, f), -1))),
  );
  if (highest >= featureCount) {
    throw new ModelRefusedError(`${where}: the tree dump splits on feature ${highest}, there are ${featureCount}.`);
  }
  return forest;
}

function flatten(root: DumpedNode): Tree {
  const nodes: DumpedNode[] = [];
  const children: [number, number][] = [];
  const visit = (n: DumpedNode, level: number): [index: number, depth: number] => {
    const index = nodes.push(n) - 1;
    children.push([-1, -1]);
    if ('leaf_value' in n) return [index, level];
    const [left, leftDepth] = visit(n.left_child, level + 1);
    const [right, rightDepth] = visit(n.right_child, level + 1);
    children[index] = [left, right];
    return [index, Math.max(leftDepth, rightDepth)];
  };
  const [, depth] = visit(root, 0);
  return {
    feature: Int32Array.from(nodes, (n) => ('leaf_value' in n ? -1 : n.split_feature)),
    threshold: Float64Array.from(nodes, (n) => ('leaf_value' in n ? 0 : n.threshold)),
    // With missing_type None, LightGBM reads a missing value as 0.
    missingLeft: Uint8Array.from(nodes, (n) =>
      'leaf_value' in n ? 0 : Number(n.missing_type === 'NaN' ? n.default_left : n.threshold >= 0),
    ),
    left: Int32Array.from(children, ([left]) => left),
    right: Int32Array.from(children, ([, right]) => right),
    // A leaf of a single-leaf tree carries no count; any positive number does there.
    cover: Float64Array.from(nodes, (n) => ('leaf_value' in n ? (n.leaf_count ?? 1) : n.internal_count)),
    value: Float64Array.from(nodes, (n) => ('leaf_value' in n ? n.leaf_value : 0)),
    depth,
  };
}

function goesLeft(tree: Tree, index: number, row: Float32Array, offset: number): boolean {
  const value = row[offset + (tree.feature[index] as number)] as number;
  return value === value ? value <= (tree.threshold[index] as number) : tree.missingLeft[index] === 1;
}

/** The tree's output for a row. */
export function evaluate(tree: Tree, row: Float32Array, offset = 0): number {
  let index = 0;
  while ((tree.feature[index] as number) >= 0) {
    index = (goesLeft(tree, index, row, offset) ? tree.left[index] : tree.right[index]) as number;
  }
  return tree.value[index] as number;
}

/**
 * The features on the way to a node, with the share of orderings in which each is known or not. Paths of all depths lie one
 * behind the other in these arrays, each a copy of its parent's with one entry more: nothing is allocated per row.
 */
class Paths {
  feature = new Int32Array(0);
  /** Share of training rows that go this way when the feature is unknown. */
  zero = new Float64Array(0);
  /** 1 if the row itself goes this way, else 0. */
  one = new Float64Array(0);
  weight = new Float64Array(0);
  /** 1 / n for lengths of paths: a product costs a fraction of a quotient, and the loops below are little else. */
  inverse = new Float64Array(0);

  reserve(depth: number): void {
    const size = ((depth + 2) * (depth + 3)) / 2;
    if (this.feature.length >= size) return;
    this.feature = new Int32Array(size);
    this.zero = new Float64Array(size);
    this.one = new Float64Array(size);
    this.weight = new Float64Array(size);
    this.inverse = Float64Array.from({ length: depth + 4 }, (_, n) => 1 / n);
  }
}

const paths = new Paths();

/**
 * Adds `factor` times each feature's Shapley value for this row and tree to `out`. The values add up to the tree's
 * output minus its mean over the training rows. Method: S. Lundberg et al., "Consistent Individualized Feature
 * Attribution for Tree Ensembles" (2018), algorithm 2.
 */
export function addShapleyValues(
  tree: Tree,
  row: Float32Array,
  offset: number,
  factor: number,
  out: Float64Array,
): void {
  paths.reserve(tree.depth);
  walk(tree, 0, 0, 0, 1, 1, -1, row, offset, factor, out);
}

/** `at`: where the path of `length` entries begins that leads to this node's parent. */
function walk(
  tree: Tree,
  index: number,
  parentAt: number,
  parentLength: number,
  zero: number,
  one: number,
  feature: number,
  row: Float32Array,
  offset: number,
  factor: number,
  out: Float64Array,
): void {
  const at = parentAt + parentLength;
  let length = extend(parentAt, parentLength, at, zero, one, feature);
  const split = tree.feature[index] as number;
  if (split < 0) {
    addLeaf(at, length, factor * (tree.value[index] as number), out);
    return;
  }
  const left = tree.left[index] as number;
  const right = tree.right[index] as number;
  const hot = goesLeft(tree, index, row, offset) ? left : right;
  const cold = hot === left ? right : left;
  let incomingZero = 1;
  let incomingOne = 1;
  let before = 1;
  while (before < length && paths.feature[at + before] !== split) before += 1;
  if (before < length) {
    // The feature was split on further up: its earlier share is taken out and carried on.
    incomingZero = paths.zero[at + before] as number;
    incomingOne = paths.one[at + before] as number;
    length = unwind(at, length, before);
  }
  const hotShare = incomingZero * shareOf(tree, index, hot);
  const coldShare = incomingZero * shareOf(tree, index, cold);
  walk(tree, hot, at, length, hotShare, incomingOne, split, row, offset, factor, out);
  walk(tree, cold, at, length, coldShare, 0, split, row, offset, factor, out);
}

function addLeaf(at: number, length: number, value: number, out: Float64Array): void {
  const { feature, zero, one, weight, inverse } = paths;
  const last = length - 1;
  // For features by which the row goes another way it is one sum, whichever of them is taken out.
  let others = 0;
  for (let i = 0; i < last; i++) others += (weight[at + i] as number) * (inverse[last - i] as number);
  others *= length;
  for (let i = 1; i < length; i++) {
    const from = at + i;
    const zeroShare = zero[from] as number;
    // (sum / zero) * (0 - zero) where the row goes another way.
    const part = one[from] === 0 ? -others : unwoundWeight(at, length, zeroShare) * (1 - zeroShare);
    out[feature[from] as number]! += part * value;
  }
}

/** Share of a node's training rows that went to this child. */
function shareOf(tree: Tree, index: number, child: number): number {
  const cover = tree.cover[index] as number;
  return cover > 0 ? Math.max(1e-12, (tree.cover[child] as number) / cover) : 0.5;
}

/** Copies a path to `at` with one entry more; answers the new length. */
function extend(fromAt: number, length: number, at: number, zero: number, one: number, feature: number): number {
  const { weight, inverse, feature: features, zero: zeros, one: ones } = paths;
  for (let i = 0; i < length; i++) {
    features[at + i] = features[fromAt + i] as number;
    zeros[at + i] = zeros[fromAt + i] as number;
    ones[at + i] = ones[fromAt + i] as number;
  }
  features[at + length] = feature;
  zeros[at + length] = zero;
  ones[at + length] = one;
  // From the end, each weight giving a part of the parent's to the entry after it.
  const share = inverse[length + 1] as number;
  weight[at + length] = length === 0 ? 1 : 0;
  for (let i = length - 1; i >= 0; i--) {
    const before = (weight[fromAt + i] as number) * share;
    if (one !== 0) weight[at + i + 1]! += before * (i + 1);
    weight[at + i] = zero * before * (length - i);
  }
  return length + 1;
}

/** Takes an entry out of a path, in place; answers the new length. */
function unwind(at: number, length: number, index: number): number {
  const { weight } = paths;
  const last = length - 1;
  const one = paths.one[at + index] as number;
  const zero = paths.zero[at + index] as number;
  let carried = weight[at + last] as number;
  for (let i = last - 1; i >= 0; i--) {
    const before = weight[at + i] as number;
    if (one !== 0) {
      const unwound = (carried * length) / ((i + 1) * one);
      weight[at + i] = unwound;
      carried = before - (unwound * zero * (last - i)) / length;
    } else weight[at + i] = (before * length) / (zero * (last - i));
  }
  for (let i = index; i < last; i++) {
    paths.feature[at + i] = paths.feature[at + i + 1] as number;
    paths.zero[at + i] = paths.zero[at + i + 1] as number;
    paths.one[at + i] = paths.one[at + i + 1] as number;
  }
  return last;
}

/** The sum of the weights that taking out an entry by which the row itself goes would leave, without making them. */
function unwoundWeight(at: number, length: number, zero: number): number {
  const { weight, inverse } = paths;
  const last = length - 1;
  const share = zero * (inverse[length] as number);
  let sum = 0;
  let carried = weight[at + last] as number;
  for (let i = last - 1; i >= 0; i--) {
    const unwound = carried * length * (inverse[i + 1] as number);
    sum += unwound;
    carried = (weight[at + i] as number) - unwound * share * (last - i);
  }
  return sum;
}
