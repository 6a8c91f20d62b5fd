"""Fits the hazard model on rows that export-rows.ts computed, and writes the files the scoring worker loads.

One gradient-boosted booster per horizon bin, on the rows still at risk at the bin's start; discrete-time hazard with
right censoring. Python computes no feature and judges no alarm: it writes the probabilities of rows that a model has not
seen (out of fold, without their fault, without their service) to scores.f32, which evaluation reads.
"""
import argparse
import hashlib
import json
import os
import time
import warnings

import lightgbm as lgb
import numpy as np

import onnx_export

# Ends of the hazard bins in steps; a bin in which hardly anything fails is not fitted.
ALL_HORIZONS = [5, 15, 30, 60, 120]
FEWEST_FAILING_ROWS = 50
FOLDS = 5
TREES = 120
PARAMETERS = dict(
    objective='binary', learning_rate=0.05, num_leaves=15, min_data_in_leaf=100, feature_fraction=0.3,
    bagging_fraction=0.7, bagging_freq=1, lambda_l2=10.0, max_bin=63, deterministic=True, force_row_wise=True,
    num_threads=2, seed=7, verbose=-1)

# The recorder starts faults at similar ages of a process and ends healthy runs early: age would be the label.
# How much is missing, and how old it is, says how the lab's producers work, not how a cell fails.
NEVER_SPLIT = {'cell:log-uptime', 'cell:log-history', 'cell:fresh-instances', 'cell:missing', 'cell:sample-age'}

# Healthy rows of cells without any incident are many and alike: one in so many is fitted, with that weight.
HEALTHY_EVERY = 3

# Physics: nearer to a limit, or faster towards it, is never safer; nor is a stronger symptom. Keeps data from being overread.
RISING = ('share', 'floor-share', 'slope-mid', 'slope-long', 'floor-slope-mid', 'floor-slope-long', 'mean', 'z', 'log-ratio',
          'gap', 'rel-slope-mid', 'rel-slope-long', 'unit-slope-mid', 'unit-slope-long', 'peer')
RISING_CROSS = ('p99-per-slo', 'p99-per-slo-mean', 'p50-per-slo', 'p99-slo-slope-mid', 'error-per-limit', 'breach-share',
                'resource-share', 'resource-share-second', 'resource-floor-slope-mid', 'resource-floor-slope-long',
                'resource-rel-slope-long', 'resource-peer', 'saturation', 'symptom-z', 'symptom-z-second',
                'symptom-log-ratio', 'symptom-log-ratio-second', 'symptom-rel-slope-mid', 'symptom-rel-slope-long',
                'symptoms-deviating', 'symptom-peer', 'error-times-retry')


def monotone(name, roles):
    metric, feature = name.split(':')
    if feature.startswith('log-steps-to') or feature.startswith('resource-log-steps'):
        return -1
    if metric == 'cell':
        return 1 if feature in RISING_CROSS else 0
    # A busier CPU or disk may also be a healthy one with more to do, and an idle one may wait for somebody.
    if metric in ('cpu.utilization', 'disk.utilization') and feature != 'mean':
        return 0
    return 1 if roles[metric] in ('resource', 'symptom') and feature in RISING else 0


def sha256(file):
    with open(file, 'rb') as content:
        return hashlib.sha256(content.read()).hexdigest()


def sigmoid(x):
    return 1 / (1 + np.exp(-np.clip(x, -500, 500)))


class Rows:
    def __init__(self, folder):
        with open(os.path.join(folder, 'rows.json')) as file:
            self.about = json.load(file)
        self.names = self.about['featureNames']
        self.groups = self.about['groups']
        shape = (self.about['rows'], len(self.names))
        self.x = np.fromfile(os.path.join(folder, 'features.f32'), dtype='<f4').reshape(shape)
        labels = np.fromfile(os.path.join(folder, 'labels.f64'), dtype='<f8').reshape(shape[0], self.about['labelColumns'])
        self.group = labels[:, 0].astype(int)
        self.cell = labels[:, 1].astype(int)
        self.plain = labels[:, 2] == 0
        self.step = labels[:, 3].astype(int)
        self.to_failure = labels[:, 4]
        self.watched = labels[:, 5]
        has_incident = np.array([len(c['incidents']) > 0 for c in self.about['cells']])[self.cell]
        self.fit_weight = np.where(self.plain & ~has_incident, HEALTHY_EVERY, 1.0)
        self.for_fit = ~(self.plain & ~has_incident) | (self.step % HEALTHY_EVERY == 0)
        self.horizons = ALL_HORIZONS
        # Both fates are needed: rows that fail within the bin and rows that were watched to its end and did not.
        failing = []
        for k in range(len(ALL_HORIZONS)):
            exposure, fails = self.bin_labels(k)
            failing.append(int(min(fails.sum(), ((exposure > 0.5) & (fails == 0) & self.plain).sum() / 4)))
        self.horizons = ALL_HORIZONS[:next((k for k, n in enumerate(failing) if n < FEWEST_FAILING_ROWS), len(failing))]
        if not self.horizons:
            raise SystemExit(f'Only {failing[0]} rows fail within {ALL_HORIZONS[0]} steps; {FEWEST_FAILING_ROWS} are needed.')
        self.constraints = [monotone(name, self.about['roles']) for name in self.names]

    def bin_labels(self, k):
        """(weight of each row in bin k, whether it fails within it).

        The weight is the share of the bin for which the row was watched: 0 for one that failed or was lost from sight
        before. Leaving out the rows lost within the bin instead would keep nearly only those that fail.
        """
        low, high = (0 if k == 0 else self.horizons[k - 1]), self.horizons[k]
        with np.errstate(invalid='ignore'):
            fails = (self.to_failure > low) & (self.to_failure <= high)
            exposure = np.clip(np.nan_to_num((self.watched - low) / (high - low), nan=0.0), 0, 1)
        return np.where(fails, 1.0, exposure), fails.astype(float)


class Fitter:
    """Bins the features once; each booster is fitted on a subset of the rows."""

    def __init__(self, rows):
        self.rows = rows
        x = rows.x.copy()
        # A metric that only cells without failures send would be taken for a sign of health.
        failing = rows.x[rows.plain & ~np.isnan(rows.to_failure)]
        for i, name in enumerate(rows.names):
            if name in NEVER_SPLIT or np.isnan(failing[:, i]).all():
                x[:, i] = np.nan
        self.parameters = {**PARAMETERS, 'monotone_constraints': rows.constraints}
        self.data = lgb.Dataset(x, np.zeros(len(x)), feature_name=[f'f{i}' for i in range(x.shape[1])],
                                params=self.parameters).construct()
        self.labels = [rows.bin_labels(k) for k in range(len(rows.horizons))]

    def fit(self, mask, k, labels=None, speed=1, constrained=True):
        """`speed`: so many times fewer trees, each of which learns as many times faster."""
        exposure, y = labels or self.labels[k]
        use = np.flatnonzero(mask & self.rows.for_fit & (exposure > 0))
        # A group weighs with the root of its length: else the slow leaks speak for all.
        group = self.rows.group[use]
        counts = np.bincount(group)
        weight = exposure[use] * self.rows.fit_weight[use] / np.sqrt(counts[group])
        data = self.data.subset(use)
        data.construct()
        data.set_label(y[use])
        data.set_weight(weight / weight.mean())
        parameters = {**(self.parameters if constrained else PARAMETERS)}
        parameters['learning_rate'] *= speed
        return lgb.train(parameters, data, TREES // speed)


def platt(raw, y, weight):
    """(scale, offset) of sigmoid(scale * raw + offset) by Newton's method with Platt's smoothed targets."""
    positives, negatives = (weight * y).sum(), (weight * (1 - y)).sum()
    target = np.where(y > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    theta = np.array([1.0, 0.0])
    design = np.stack([raw, np.ones_like(raw)], 1)
    loss = lambda t: float((weight * (np.logaddexp(0, design @ t) - target * (design @ t))).sum())
    for _ in range(50):
        p = sigmoid(design @ theta)
        gradient = design.T @ (weight * (p - target))
        hessian = (design * (weight * p * (1 - p))[:, None]).T @ design + 1e-3 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        # A full Newton step may overshoot where the scores are far off: it is halved until it helps.
        while loss(theta - step) > loss(theta) and np.abs(step).max() > 1e-12:
            step /= 2
        theta = theta - step
        if np.abs(step).max() < 1e-9:
            break
    if theta[0] <= 0:
        raise ValueError('calibration would turn the order of the scores around: too few or useless data')
    return [float(theta[0]), float(theta[1])]


def failure(hazards):
    """F at each horizon from the hazards of the bins."""
    return 1 - np.cumprod(1 - hazards, axis=1)


def hazards_of(boosters, calibration, x):
    return np.stack([sigmoid(s * b.predict(x, raw_score=True) + o) for b, (s, o) in zip(boosters, calibration)], axis=1)


def trimmed(node):
    if 'leaf_value' in node:
        leaf = {'leaf_value': node['leaf_value']}
        if 'leaf_count' in node:
            leaf['leaf_count'] = node['leaf_count']
        return leaf
    keep = ('split_feature', 'threshold', 'decision_type', 'default_left', 'missing_type', 'internal_count')
    return {**{name: node[name] for name in keep},
            'left_child': trimmed(node['left_child']), 'right_child': trimmed(node['right_child'])}


def psi_bins(x, names):
    """Per feature: nine deciles of the training rows and the share that is missing, to tell drift by later."""
    found = []
    for i, name in enumerate(names):
        column = x[:, i]
        present = column[~np.isnan(column)]
        edges = np.unique(np.quantile(present, np.arange(0.1, 1, 0.1))) if len(present) >= 100 else np.array([])
        shares = np.bincount(np.searchsorted(edges, present, side='right'), minlength=len(edges) + 1) / max(1, len(present))
        found.append({'feature': name, 'edges': [float(e) for e in edges], 'shares': [round(float(s), 5) for s in shares],
                      'missing': round(float(1 - len(present) / len(column)), 5)})
    return found


def main():
    warnings.filterwarnings('ignore', 'All-NaN slice')
    parser = argparse.ArgumentParser()
    parser.add_argument('rows')
    parser.add_argument('out')
    parser.add_argument('--held-out-services', default='')
    parser.add_argument('--held-out-every', type=int, default=5, help='every so manieth group of the other services')
    parser.add_argument('--leave-out', action='store_true', help='also fit without each fault and each service')
    parser.add_argument('--name', default='understudy-hazard')
    options = parser.parse_args()
    began = time.time()
    say = lambda text: print(f'[{time.time() - began:5.0f} s] {text}', flush=True)

    rows = Rows(options.rows)
    groups = rows.groups
    services = [s for s in options.held_out_services.split(',') if s]
    held_out_group = np.array([g['service'] in services or g['number'] % options.held_out_every == options.held_out_every - 2
                               for g in groups])
    fold_of_group = np.array([(g['number'] * 7 + i) % FOLDS for i, g in enumerate(groups)])
    held_out = held_out_group[rows.group]
    training = ~held_out
    fold = fold_of_group[rows.group]
    say(f'{len(rows.x)} rows of {len(groups)} groups, {int(held_out_group.sum())} held out')
    fitter = Fitter(rows)

    plain = np.flatnonzero(rows.plain)
    horizon_count = len(rows.horizons)
    scores = np.full((len(plain), horizon_count * 3), np.nan, dtype='<f4')
    of_plain = {name: values[plain] for name, values in (('training', training), ('fold', fold), ('group', rows.group))}

    boosters, calibration, out_of_fold = [], [], np.full((len(plain), horizon_count), np.nan)
    for k in range(horizon_count):
        exposure, y = fitter.labels[k]
        raw = np.full(len(plain), np.nan)
        for f in range(FOLDS):
            test = of_plain['training'] & (of_plain['fold'] == f)
            raw[test] = fitter.fit(training & (fold != f), k).predict(rows.x[plain[test]], raw_score=True)
        seen = ~np.isnan(raw) & (exposure[plain] > 0)
        scale, offset = platt(raw[seen], y[plain][seen], exposure[plain][seen])
        calibration.append([scale, offset])
        out_of_fold[:, k] = sigmoid(scale * raw + offset)
        boosters.append(fitter.fit(training, k))
        say(f'bin {k}: {int(y[plain][seen].sum())} of {int(seen.sum())} rows fail; scale {scale:.3f}, offset {offset:.3f}')

    scores[:, :horizon_count] = failure(out_of_fold)
    unseen = ~of_plain['training']
    scores[unseen, :horizon_count] = failure(hazards_of(boosters, calibration, rows.x[plain[unseen]]))

    if options.leave_out:
        def leave_out(column, of_group):
            for name in sorted({n for names in of_group for n in names}):
                with_it = np.array([name in names for names in of_group])
                mask = training & ~with_it[rows.group]
                test = with_it[of_plain['group']]
                if not mask.any() or not test.any():
                    continue
                # Two dozen further models are fitted here: a little coarser, to be done in minutes.
                fitted = [fitter.fit(mask, k, speed=3) for k in range(horizon_count)]
                found = failure(hazards_of(fitted, calibration, rows.x[plain[test]]))
                scores[test, column * horizon_count:(column + 1) * horizon_count] = found
                say(f'without {name}: {int(test.sum())} rows')
        leave_out(1, [g['faults'] for g in groups])
        leave_out(2, [[g['service']] for g in groups])
    with open(os.path.join(options.rows, 'scores.f32'), 'wb') as file:
        scores.tofile(file)

    # Shuffled labels must teach nothing: whole cells exchange their fates within the training groups.
    random = np.random.default_rng(7)
    exposure, y = fitter.labels[2]
    shuffled = y.copy()
    pool = np.flatnonzero(training & (exposure > 0))
    shuffled[pool] = y[random.permutation(pool)]
    # Without constraints: what physics says of the directions is no leak, and would show.
    model = fitter.fit(training & (fold != 0), 2, (exposure, shuffled), constrained=False)
    test = plain[of_plain['training'] & (of_plain['fold'] == 0)]
    test = test[exposure[test] > 0]
    p = sigmoid(model.predict(rows.x[test], raw_score=True))
    order = np.argsort(-p)
    hits = np.cumsum(y[test][order]) / np.arange(1, len(order) + 1)
    shuffled_pr_auc = float((hits * y[test][order]).sum() / max(1, y[test].sum()))
    say(f'shuffled labels: PR-AUC {shuffled_pr_auc:.4f} at a base rate of {y[test].mean():.4f}')

    os.makedirs(options.out, exist_ok=True)
    path = lambda name: os.path.join(options.out, name)
    onnx_export.export(boosters, calibration, len(rows.names), path('understudy.onnx'))
    with open(path('trees.json'), 'w') as file:
        json.dump({'bins': [
            {'scale': s, 'offset': o, 'trees': [trimmed(t['tree_structure']) for t in b.dump_model()['tree_info']]}
            for b, (s, o) in zip(boosters, calibration)]}, file, separators=(',', ':'))

    # Golden vectors: rows spread over the whole range of scores, with whatever is missing in them.
    candidates = plain[unseen] if unseen.any() else plain
    hazards = hazards_of(boosters, calibration, rows.x[candidates])
    ranked = np.argsort(hazards.max(axis=1), kind='stable')
    chosen = ranked[np.linspace(0, len(ranked) - 1, 40).astype(int)]
    golden = candidates[chosen]
    with open(path('golden.json'), 'w') as file:
        json.dump({
            'features': [[None if np.isnan(v) else float(v) for v in row] for row in rows.x[golden]],
            'hazard': [[float(v) for v in row] for row in hazards[chosen]]}, file, separators=(',', ':'))

    has_incident = np.array([len(c['incidents']) > 0 for c in rows.about['cells']])[rows.cell]
    usual = rows.x[training & rows.plain & ~has_incident].astype(float)
    with np.errstate(all='ignore'):
        median = np.nanmedian(usual, axis=0)
        scale = 1.4826 * np.nanmedian(np.abs(usual - median), axis=0)
    or_null = lambda values: [None if np.isnan(v) else float(np.float32(v)) for v in values]
    manifest = {
        'model': options.name, 'version': '2.' + rows.about['dataSha256'][:8],
        'onnx': 'understudy.onnx', 'onnxSha256': sha256(path('understudy.onnx')),
        'trees': 'trees.json', 'treesSha256': sha256(path('trees.json')),
        'featureSpecSha256': rows.about['featureSpecSha256'], 'featureNames': rows.names,
        'horizonsSteps': rows.horizons, 'trainedStepMs': 1000,
        'calibration': [{'scale': s, 'offset': o} for s, o in calibration],
        'novelty': {'median': or_null(median), 'scale': or_null(scale)},
        'drift': psi_bins(rows.x[training & rows.plain], rows.names),
        'goldenVectors': 'golden.json', 'goldenSha256': sha256(path('golden.json')),
        'dataSha256': rows.about['dataSha256'],
        'split': {'heldOutServices': services, 'heldOutEvery': options.held_out_every,
                  'heldOutRemainder': options.held_out_every - 2},
        'shuffledLabels': {'prAuc': round(shuffled_pr_auc, 5), 'baseRate': round(float(y[test].mean()), 5)},
        'trainedOn': {'groups': int((~held_out_group).sum()), 'rows': int((training & rows.plain).sum()), 'trees': TREES,
                      'parameters': PARAMETERS}}
    with open(path('manifest.json'), 'w') as file:
        json.dump(manifest, file, indent=1)
        file.write('\n')
    gain = sorted(((sum(b.feature_importance('gain')[i] for b in boosters), n) for i, n in enumerate(rows.names)),
                  reverse=True)[:20]
    say('gain: ' + ', '.join(f'{n} {g:.0f}' for g, n in gain))


if __name__ == '__main__':
    main()
