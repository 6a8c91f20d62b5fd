"""Fits the hazard model on rows that export-rows.ts computed, and writes the files the scoring worker loads.

One gradient-boosted booster per horizon bin, on the rows still at risk at the bin's start; discrete-time hazard with
right censoring. Python computes no feature. Usage: train.py ROWS_DIR OUT_DIR
"""
import hashlib
import json
import os
import sys
import warnings

import lightgbm as lgb
import numpy as np

import onnx_export

HORIZONS = [5, 15, 30, 60]
FOLDS = 4
# Episodes whose number leaves this remainder modulo 4 are never seen in fitting or calibration.
HELD_OUT_REMAINDER = 3
TREES = 80
PARAMETERS = dict(
    objective='binary', learning_rate=0.05, num_leaves=8, min_data_in_leaf=80, feature_fraction=0.4,
    bagging_fraction=0.8, bagging_freq=1, lambda_l2=10.0, max_bin=127, deterministic=True, force_row_wise=True,
    num_threads=1, seed=7, verbose=-1)

# The recorder starts faults at similar ages of a process and ends healthy runs early: age would be the label.
# How much is missing, and how old it is, says how the lab's producers work, not how a cell fails.
NEVER_SPLIT = ['cell:log-uptime', 'cell:log-history', 'cell:fresh-instances', 'cell:missing', 'cell:sample-age']

# The load of a recorded episode is drawn at random and foretells nothing; what varies with the machine the episodes
# shared would only be learnt by heart.
NEVER_SPLIT_METRICS = ['http.request_rate', 'fd.used', 'pool.used', 'queue.depth', 'dependency.error_ratio',
                       'dependency.latency_p99_s']


def never_split(name):
    metric, feature = name.split(':')
    return name in NEVER_SPLIT or metric in NEVER_SPLIT_METRICS or feature == 'sd-ratio'


# Physics: nearer to a limit, or faster towards it, is never safer; nor is slower, more congested or busier with collecting
# garbage than usual. Keeps few data from being overread.
LIMITED = ['heap.used_bytes', 'memory.used_bytes', 'http.in_flight']
SYMPTOMS = ['gc.share', 'event_loop.delay_p99_s', 'http.latency_p50_s', 'http.latency_p99_s', 'http.error_ratio',
            'cpu.utilization']


def monotone(name):
    metric, feature = name.split(':')
    if metric in LIMITED and feature != 'r2-30':
        return -1 if feature == 'log-steps-to-limit' else 1
    return 1 if metric in SYMPTOMS or name in ('cell:latency-p99-per-slo', 'cell:in-flight-per-load') else 0


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
        shape = (self.about['rows'], len(self.names))
        self.x = np.fromfile(os.path.join(folder, 'features.f32'), dtype='<f4').reshape(shape)
        labels = np.fromfile(os.path.join(folder, 'labels.f64'), dtype='<f8').reshape(shape[0], 5)
        self.episode = labels[:, 0].astype(int)
        self.plain = labels[:, 1] == 0
        self.at_s = labels[:, 2]
        self.to_failure = labels[:, 3]
        self.watched = labels[:, 4]

    def bin_labels(self, k):
        """(weight of each row in bin k, whether it fails within it).

        The weight is the share of the bin for which the row was watched: 0 for one that failed or was lost from sight
        before. Leaving out the rows lost within the bin instead would keep nearly only those that fail.
        """
        low, high = (0 if k == 0 else HORIZONS[k - 1]), HORIZONS[k]
        with np.errstate(invalid='ignore'):
            fails = (self.to_failure > low) & (self.to_failure <= high)
        exposure = np.clip((self.watched - low) / (high - low), 0, 1)
        return np.where(fails, 1.0, exposure), fails.astype(float)

    def fails_within(self, horizon):
        """(rows whose fate at the horizon is known, whether they had failed by then)."""
        with np.errstate(invalid='ignore'):
            fails = self.to_failure <= horizon
        return fails | (self.watched >= horizon), fails


def fit(rows, mask, k):
    exposure, y = rows.bin_labels(k)
    use = mask & (exposure > 0)
    x = rows.x[use].copy()
    for i, name in enumerate(rows.names):
        if never_split(name):
            x[:, i] = np.nan
    # An episode weighs with the root of its length: else the slow leaks speak for all.
    episode = rows.episode[use]
    counts = np.bincount(episode)
    weight = exposure[use] / np.sqrt(counts[episode])
    data = lgb.Dataset(x, y[use], weight=weight / weight.mean(), feature_name=[f'f{i}' for i in range(x.shape[1])])
    constraints = [monotone(name) for name in rows.names]
    return lgb.train({**PARAMETERS, 'monotone_constraints': constraints}, data, TREES)


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


def trimmed(node):
    if 'leaf_value' in node:
        leaf = {'leaf_value': node['leaf_value']}
        if 'leaf_count' in node:
            leaf['leaf_count'] = node['leaf_count']
        return leaf
    keep = ('split_feature', 'threshold', 'decision_type', 'default_left', 'missing_type', 'internal_count')
    return {**{name: node[name] for name in keep},
            'left_child': trimmed(node['left_child']), 'right_child': trimmed(node['right_child'])}


def expected_calibration_error(p, y, bins=10):
    order = np.argsort(p)
    return float(sum(len(part) / len(p) * abs(p[part].mean() - y[part].mean())
                     for part in np.array_split(order, bins) if len(part)))


def evaluate(rows, held_out, hazards):
    """Event-based figures on the held-out episodes as recorded; an alarm is F(60) >= 0.5 for 2 steps in a row."""
    f60 = failure(hazards)[:, -1]
    figures = {'episodes': [], 'horizonSteps': HORIZONS[-1], 'threshold': 0.5}
    for about in rows.about['episodes']:
        if about['number'] not in held_out:
            continue
        mine = (rows.episode == about['number']) & rows.plain
        at, p = rows.at_s[mine], f60[mine]
        alarm = (p >= 0.5) & (np.concatenate([[0], p[:-1]]) >= 0.5)
        leak = [i for i in about['incidents'] if i['predictable']]
        found = {'number': about['number'], 'kind': about['kind'], 'alarm_share': round(float(alarm.mean()), 3),
                 'highest': round(float(p.max()), 3), 'leak_start_s': about['leakStartS']}
        if leak:
            onset = leak[0]['onsetS']
            before = at < onset
            # Lead of the alarm that lasts until the onset; earlier ones that ended again count as false.
            off = np.flatnonzero(before & ~alarm)
            start = at[before][0] if len(off) == 0 else (at[off[-1] + 1] if off[-1] + 1 < len(at) else onset)
            found.update(onset_s=round(onset, 1), lead_s=round(float(max(0, onset - start)), 1))
        elif about['kind'] == 'leak-that-stops':
            stop = about['leakStopS']
            late = alarm & (at > stop + 15)
            found.update(alarm_after_stop_s=int((alarm & (at > stop)).sum()), alarm_15s_after_stop=bool(late.any()))
        figures['episodes'].append(found)
    caught = [e for e in figures['episodes'] if 'lead_s' in e]
    leads = [e['lead_s'] for e in caught]
    figures['failing'] = len(caught)
    figures['recall_at_least_4s'] = float(np.mean([lead >= 4 for lead in leads])) if leads else None
    figures['recall_at_least_15s'] = float(np.mean([lead >= 15 for lead in leads])) if leads else None
    figures['median_lead_s'] = float(np.median(leads)) if leads else None
    healthy = [e for e in figures['episodes'] if e['kind'] == 'healthy']
    figures['healthy'] = len(healthy)
    figures['healthy_with_alarm'] = sum(e['alarm_share'] > 0 for e in healthy)
    stopped = [e for e in figures['episodes'] if 'alarm_15s_after_stop' in e]
    figures['stopped'] = len(stopped)
    figures['stopped_alarm_15s_later'] = sum(e['alarm_15s_after_stop'] for e in stopped)
    for k, horizon in enumerate(HORIZONS):
        known, y = rows.fails_within(horizon)
        use = known & rows.plain & np.isin(rows.episode, list(held_out))
        p, truth = failure(hazards)[use, k], y[use].astype(float)
        base = truth.mean()
        figures[f'F({horizon})'] = {
            'rows': int(use.sum()), 'base_rate': round(float(base), 4),
            'brier': round(float(np.mean((p - truth) ** 2)), 4),
            'brier_skill': round(float(1 - np.mean((p - truth) ** 2) / (base * (1 - base))), 3) if 0 < base < 1 else None,
            'ece': round(expected_calibration_error(p, truth), 4)}
    return figures


def main():
    # Metrics that nobody sends have no median.
    warnings.filterwarnings('ignore', 'All-NaN slice')
    rows_dir, out = sys.argv[1], sys.argv[2]
    rows = Rows(rows_dir)
    numbers = np.unique(rows.episode)
    held_out = {int(n) for n in numbers if n % 4 == HELD_OUT_REMAINDER}
    for_fit = ~np.isin(rows.episode, list(held_out))
    fold = (rows.episode // 4) % FOLDS

    boosters, calibration, out_of_fold = [], [], []
    for k in range(len(HORIZONS)):
        exposure, y = rows.bin_labels(k)
        raw = np.full(len(y), np.nan)
        for f in range(FOLDS):
            test = for_fit & rows.plain & (fold == f)
            raw[test] = fit(rows, for_fit & (fold != f), k).predict(rows.x[test], raw_score=True)
        seen = ~np.isnan(raw) & (exposure > 0)
        scale, offset = platt(raw[seen], y[seen], exposure[seen])
        calibration.append([scale, offset])
        out_of_fold.append(sigmoid(scale * raw + offset))
        boosters.append(fit(rows, for_fit, k))
        print(f'bin {k}: {int(y[seen].sum())} of {int(seen.sum())} rows fail; scale {scale:.3f}, offset {offset:.3f}')
    # What choices are made by; the held-out episodes are only reported on.
    chosen_by = evaluate(rows, {int(n) for n in numbers} - held_out, np.stack(out_of_fold, axis=1))
    print('out of fold:', json.dumps({k: v for k, v in chosen_by.items() if k != 'episodes'}, indent=1))

    def hazards_of(x):
        return np.stack([sigmoid(s * b.predict(x, raw_score=True) + o)
                         for b, (s, o) in zip(boosters, calibration)], axis=1)

    hazards = hazards_of(rows.x)
    figures = evaluate(rows, held_out, hazards)

    os.makedirs(out, exist_ok=True)
    path = lambda name: os.path.join(out, name)
    onnx_export.export(boosters, calibration, len(rows.names), path('understudy.onnx'))
    with open(path('trees.json'), 'w') as file:
        json.dump({'bins': [
            {'scale': s, 'offset': o, 'trees': [trimmed(t['tree_structure']) for t in b.dump_model()['tree_info']]}
            for b, (s, o) in zip(boosters, calibration)]}, file, separators=(',', ':'))

    # Golden vectors: held-out rows spread over the whole range of scores, with whatever is missing in them.
    candidates = np.flatnonzero(~for_fit)
    ranked = candidates[np.argsort(hazards[candidates].max(axis=1), kind='stable')]
    golden = ranked[np.linspace(0, len(ranked) - 1, 40).astype(int)]
    with open(path('golden.json'), 'w') as file:
        json.dump({
            'features': [[None if np.isnan(v) else float(v) for v in row] for row in rows.x[golden]],
            'hazard': [[float(v) for v in row] for row in hazards[golden]]}, file, separators=(',', ':'))

    healthy = [e['number'] for e in rows.about['episodes'] if e['kind'] == 'healthy']
    usual = rows.x[for_fit & rows.plain & np.isin(rows.episode, healthy)].astype(float)
    with np.errstate(all='ignore'):
        median = np.nanmedian(usual, axis=0)
        scale = 1.4826 * np.nanmedian(np.abs(usual - median), axis=0)
    orNull = lambda values: [None if np.isnan(v) else float(np.float32(v)) for v in values]
    manifest = {
        'model': 'understudy-hazard', 'version': '1.' + rows.about['dataSha256'][:8],
        'onnx': 'understudy.onnx', 'onnxSha256': sha256(path('understudy.onnx')),
        'trees': 'trees.json', 'treesSha256': sha256(path('trees.json')),
        'featureSpecSha256': rows.about['featureSpecSha256'], 'featureNames': rows.names,
        'horizonsSteps': HORIZONS, 'trainedStepMs': rows.about['stepMs'],
        'calibration': [{'scale': s, 'offset': o} for s, o in calibration],
        'novelty': {'median': orNull(median), 'scale': orNull(scale)},
        'goldenVectors': 'golden.json', 'goldenSha256': sha256(path('golden.json')),
        'dataSha256': rows.about['dataSha256'],
        'trainedOn': {'episodes': int(len(numbers) - len(held_out)), 'heldOut': sorted(held_out),
                      'rows': int((for_fit & rows.plain).sum()), 'trees': TREES, 'parameters': PARAMETERS}}
    with open(path('manifest.json'), 'w') as file:
        json.dump(manifest, file, indent=1)
        file.write('\n')
    with open(path('evaluation.json'), 'w') as file:
        json.dump({'heldOut': figures, 'outOfFold': chosen_by}, file, indent=1)
        file.write('\n')
    gain = sorted(((sum(b.feature_importance('gain')[i] for b in boosters), n) for i, n in enumerate(rows.names)),
                  reverse=True)[:12]
    print('gain:', ', '.join(f'{n} {g:.0f}' for g, n in gain))
    print('held out:', json.dumps({k: v for k, v in figures.items() if k != 'episodes'}, indent=1))


if __name__ == '__main__':
    main()
