"""Fits the challenger: a small causal convolution network over the sequences that export-sequences.js wrote.

It answers the champion's question from the same labels (the hazard of each horizon bin, right-censored) but finds trends
in the sequence by itself. Probabilities of rows that a network has not seen go to scores.f32 in the layout of train.py.
It is compared, never served.
"""
import argparse
import json
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

from train import Rows, failure, platt, sigmoid

FOLDS = 4
# Of the groups a network is fitted on, one in so many says when to stop.
STOP_EVERY = 8
WIDTH = 32
# Three taps each: a step sees itself and the 126 before it, about what the champion's longest window does. With a memory
# of any length the network could count the steps since the recording began, which the recorder gives a meaning.
DILATIONS = (1, 2, 4, 8, 16, 32)
STEPS_SEEN = 1 + 2 * sum(DILATIONS)
CROP = 192
BATCH = 32
STEPS_PER_EPOCH = 50
MOST_EPOCHS = 40
PATIENCE = 10
LEARNING_RATE = 1e-3
WARM_UP = 100
STEADINESS = 0.99
HALVED_EVERY = 10
WEIGHT_DECAY = 1e-2
DROPPED = 0.2
MOST_METRICS_DROPPED = 0.4
LARGEST = 6.0
PIECE = 256
PIECES_AT_ONCE = 64
SEED = 7


def initial(random, channels, log_odds):
    dense = lambda n, m: jnp.asarray(random.normal(0, np.sqrt(2 / n), (n, m)), jnp.float32)
    zeros = lambda *shape: jnp.zeros(shape, jnp.float32)
    return {
        'first': (dense(2 * channels, WIDTH), zeros(WIDTH)),
        # The second half of a layer begins at zero: the network begins shallow.
        'layers': [(dense(3 * WIDTH, WIDTH), zeros(WIDTH), zeros(WIDTH, WIDTH), zeros(WIDTH)) for _ in DILATIONS],
        'last': (dense(WIDTH, len(log_odds)) * 0.1, jnp.asarray(log_odds, jnp.float32))}


def logits(weights, x, key=None):
    """Log-odds of each bin's hazard per sequence and step; of x, NaN is missing. Looks at no later step.

    With a key, for fitting, each layer loses some of its units.
    """
    def thinned(h, layer):
        if key is None:
            return h
        # One draw per sequence: what a unit says at one step it also says at the next.
        kept = jax.random.bernoulli(jax.random.fold_in(key, layer), 1 - DROPPED, (h.shape[0], 1, h.shape[2]))
        return h * kept / (1 - DROPPED)
    seen = ~jnp.isnan(x)
    h = jnp.concatenate([jnp.where(seen, x, 0), seen.astype(jnp.float32)], -1)
    w, b = weights['first']
    h = thinned(jax.nn.gelu(h @ w + b), 0)
    for layer, (dilation, (w1, b1, w2, b2)) in enumerate(zip(DILATIONS, weights['layers'])):
        before = lambda steps: jnp.pad(h, ((0, 0), (steps, 0), (0, 0)))[:, :h.shape[1]]
        taps = jnp.concatenate([h, before(dilation), before(2 * dilation)], -1)
        h = h + thinned(jax.nn.gelu(taps @ w1 + b1), layer + 1) @ w2 + b2
    w, b = weights['last']
    return h @ w + b


def loss(weights, key, x, y, exposure):
    """Censored likelihood: of each bin, the rows at risk in it, for as long as they were watched."""
    z = logits(weights, x, key)
    return (exposure * (jnp.logaddexp(0, z) - y * z)).sum()


@jax.jit
def adam(weights, state, running, step, rate, x, y, exposure):
    gradient = jax.grad(loss)(weights, jax.random.key(step), x, y, exposure)
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state[0], gradient)
    square = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g * g, state[1], gradient)
    fix1, fix2 = 1 - 0.9 ** step, 1 - 0.99 ** step
    weights = jax.tree.map(
        lambda w, m, v: w - rate * (m / fix1 / (jnp.sqrt(v / fix2) + 1e-8) + WEIGHT_DECAY * w), weights, mean, square)
    share = jnp.minimum(STEADINESS, step / (step + 10))
    return weights, (mean, square), jax.tree.map(lambda r, w: share * r + (1 - share) * w, running, weights)


class Sequences:
    """One sequence per cell: its rows in order, from `first` on `length` of them. NaN where there is no value."""

    def __init__(self, rows):
        about = rows.about
        self.horizons = rows.horizons = about['horizonsSteps']
        self.order = np.lexsort((rows.step, rows.cell))
        cells = len(about['cells'])
        self.length = np.bincount(rows.cell, minlength=cells)
        self.first = np.cumsum(self.length) - self.length
        self.cell = rows.cell[self.order]
        # A cell's rows have no gaps: every tick has one from the cell's first sample on.
        gaps = (np.diff(rows.step[self.order]) != 1) & (np.diff(self.cell) == 0)
        if gaps.any():
            raise SystemExit(f'The rows of {int(gaps.sum())} cells have gaps: export them again.')
        self.group_of_cell = np.array([c['group'] for c in about['cells']])
        names = sorted(set(about['metricOfFeature']))
        self.metric = np.array([names.index(m) for m in about['metricOfFeature']])
        self.x = rows.x[self.order]
        bins = [rows.bin_labels(k) for k in range(len(self.horizons))]
        self.y = np.stack([y for _, y in bins], 1)[self.order].astype('f4')
        # As for the champion, a group weighs with the root of its length.
        of_group = np.sqrt(np.bincount(rows.group))[rows.group]
        self.exposure = (np.stack([e for e, _ in bins], 1) / of_group[:, None])[self.order].astype('f4')

    def cells_of(self, groups):
        return np.flatnonzero(groups[self.group_of_cell] & (self.length > 0))

    def rows_of(self, cells):
        return np.flatnonzero(np.isin(self.cell, cells))

    def windows(self, cells, begin, steps):
        """(rows of a stretch of each cell, from `begin` on, and which of them there are)."""
        at = begin[:, None] + np.arange(steps)
        there = (at >= 0) & (at < self.length[cells][:, None])
        return np.where(there, self.first[cells][:, None] + at, 0), there


class Network:
    def __init__(self, sequences, groups, say):
        """Fitted on the groups (a mask), but for those that say when to stop."""
        s, random = sequences, np.random.default_rng(SEED)
        stopping = np.zeros(len(groups), bool)
        stopping[np.flatnonzero(groups)[::STOP_EVERY]] = True
        fitted, watching = s.cells_of(groups & ~stopping), s.cells_of(stopping)
        rows = s.rows_of(fitted)
        seen = ~np.isnan(s.x[rows])
        count = np.maximum(1, seen.sum(0))
        self.mean = np.where(seen, s.x[rows], 0).sum(0) / count
        self.scale = np.sqrt(np.where(seen, (s.x[rows] - self.mean) ** 2, 0).sum(0) / count) + 1e-3
        total = s.exposure[rows].sum(0) + 1e-9
        base = np.clip((s.exposure * s.y)[rows].sum(0) / total, 1e-4, 0.5)
        x = self._scaled(s.x)
        weights = initial(random, x.shape[1], np.log(base / (1 - base)))
        zeros = jax.tree.map(jnp.zeros_like, weights)
        # Judged and kept is the running mean of the weights, which is steadier than the weights.
        state, mean, best, step, self.epochs = (zeros, zeros), weights, (np.inf, weights), 0, 0
        for epoch in range(MOST_EPOCHS):
            for _ in range(STEPS_PER_EPOCH):
                step += 1
                batch = self._crops(random, s, x, fitted, total)
                rate = LEARNING_RATE * min(1, step / WARM_UP) * 0.5 ** (epoch / HALVED_EVERY)
                weights, state, mean = adam(weights, state, mean, step, rate, *batch)
            found = self._loss(mean, s, x, watching)
            if found < best[0]:
                best, self.epochs = (found, mean), epoch + 1
            if epoch + 1 - self.epochs >= PATIENCE:
                break
        self.weights = best[1]
        say(f'fitted on {len(fitted)} sequences: loss {best[0]:.4f} on {len(watching)} others after {self.epochs} epochs')

    def _scaled(self, x):
        return np.clip((x - self.mean) / self.scale, -LARGEST, LARGEST).astype('f4')

    @staticmethod
    def _crops(random, s, x, fitted, total):
        """Stretches of sequences, beginning anywhere so that a step's place says nothing, without some of the metrics."""
        chance = np.sqrt(s.length[fitted])
        chance /= chance.sum()
        drawn = random.choice(len(fitted), BATCH, p=chance)
        cells = fitted[drawn]
        rows, there = s.windows(cells, (random.random(BATCH) * s.length[cells]).astype(int) - CROP // 2, CROP)
        crop = np.where(there[..., None], x[rows], np.float32(np.nan))
        share = MOST_METRICS_DROPPED * random.random(BATCH) * (random.random(BATCH) < 0.5)
        dropped = random.random((BATCH, s.metric.max() + 1)) < share[:, None]
        crop[np.broadcast_to(dropped[:, None, s.metric], crop.shape)] = np.nan
        # What is drawn stands for what is not: the other sequences, and the rest of this one.
        stands_for = np.maximum(1, s.length[cells] / CROP) / chance[drawn] / BATCH
        exposure = s.exposure[rows] / total * (there * stands_for[:, None])[..., None]
        return crop, s.y[rows], exposure.astype('f4')

    @staticmethod
    def _loss(weights, s, x, cells):
        rows = s.rows_of(cells)
        z = predicted(weights, s, x, cells)[rows]
        exposure = s.exposure[rows] / (s.exposure[rows].sum(0) + 1e-9)
        return float((exposure * (np.logaddexp(0, z) - s.y[rows] * z)).sum())

    def raw(self, sequences, cells):
        return predicted(self.weights, sequences, self._scaled(sequences.x), cells)


_forward = jax.jit(lambda weights, x: logits(weights, x))


def predicted(weights, s, x, cells):
    """Log-odds per row, NaN for those of other cells. Long sequences go piece by piece, each with all it may look back on."""
    found = np.full((len(x), weights['last'][1].shape[0]), np.nan, dtype='f4')
    new = PIECE - STEPS_SEEN + 1
    pieces = np.array([(cell, begin - STEPS_SEEN + 1) for cell in cells for begin in range(0, s.length[cell], new)])
    for i in range(0, len(pieces), PIECES_AT_ONCE):
        # One shape only: each other one would be compiled anew.
        part = np.resize(pieces[i:i + PIECES_AT_ONCE], (PIECES_AT_ONCE, 2))
        rows, there = s.windows(part[:, 0], part[:, 1], PIECE)
        z = np.asarray(_forward(weights, np.where(there[..., None], x[rows], np.float32(np.nan))))
        found[rows[:, -new:][there[:, -new:]]] = z[:, -new:][there[:, -new:]]
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('rows', help='folder of export-sequences.js; scores.f32 and challenger.json are written beside')
    options = parser.parse_args()
    began = time.time()
    say = lambda text: print(f'[{time.time() - began:5.0f} s] {text}', flush=True)

    rows = Rows(options.rows)
    s = Sequences(rows)
    held_out = np.array([g['heldOut'] for g in rows.groups])
    fold = np.array([(g['number'] * 7 + i) % FOLDS for i, g in enumerate(rows.groups)])
    count = len(s.horizons)
    say(f'{int((s.length > 0).sum())} sequences of {len(s.x)} steps and {s.x.shape[1]} channels, '
        f'{int(held_out.sum())} of {len(held_out)} groups held out')

    of_row = np.full((len(s.x), count), np.nan, dtype='f4')
    fits = [Network(s, ~held_out & (fold != f), say) for f in range(FOLDS)] + [Network(s, ~held_out, say)]
    for f, network in enumerate(fits):
        cells = s.cells_of(held_out if f == FOLDS else ~held_out & (fold == f))
        rows_of = s.rows_of(cells)
        of_row[s.order[rows_of]] = network.raw(s, cells)[rows_of]

    training = ~held_out[rows.group]
    hazards, calibration = np.full((len(of_row), count), np.nan), []
    for k in range(count):
        exposure, y = rows.bin_labels(k)
        seen = training & (exposure > 0)
        scale, offset = platt(of_row[seen, k].astype(float), y[seen], exposure[seen])
        calibration.append({'scale': scale, 'offset': offset})
        hazards[:, k] = sigmoid(scale * of_row[:, k] + offset)
        say(f'bin {k}: {int(y[seen].sum())} of {int(seen.sum())} rows fail; scale {scale:.3f}, offset {offset:.3f}')
    scores = np.full((len(of_row), 3 * count), np.nan, dtype='<f4')
    scores[:, :count] = failure(hazards)
    with open(os.path.join(options.rows, 'scores.f32'), 'wb') as file:
        scores.tofile(file)

    weights = fits[-1].weights
    about = {
        'kind': 'causal convolution network (TCN)', 'weights': int(sum(w.size for w in jax.tree.leaves(weights))),
        'channels': s.x.shape[1], 'width': WIDTH, 'dilations': DILATIONS, 'stepsSeen': STEPS_SEEN,
        'crop': CROP, 'batch': BATCH, 'learningRate': LEARNING_RATE, 'weightDecay': WEIGHT_DECAY,
        'unitsDropped': DROPPED, 'metricsDropped': MOST_METRICS_DROPPED, 'folds': FOLDS, 'seed': SEED, 'epochs': [n.epochs for n in fits],
        'calibration': calibration, 'horizonsSteps': s.horizons, 'sequences': int((s.length > 0).sum())}
    with open(os.path.join(options.rows, 'challenger.json'), 'w') as file:
        json.dump(about, file, indent=1)
    say('done')


if __name__ == '__main__':
    main()
