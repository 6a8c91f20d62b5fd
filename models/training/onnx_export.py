"""Writes LightGBM boosters, one per hazard bin, with their calibration into one ONNX graph."""
import numpy as np
from onnx import TensorProto, checker, helper


def float32_below(threshold):
    """The largest float32 not above a double threshold: for float32 inputs `x <= t` then decides the same way."""
    threshold = min(threshold, float(np.finfo(np.float32).max))
    rounded = np.float32(threshold)
    return float(np.nextafter(rounded, np.float32(-np.inf)) if float(rounded) > threshold else rounded)


def tree_ensemble(boosters):
    """Attributes of one TreeEnsembleRegressor whose target k is the raw score of booster k."""
    a = {name: [] for name in (
        'nodes_treeids', 'nodes_nodeids', 'nodes_featureids', 'nodes_modes', 'nodes_values', 'nodes_truenodeids',
        'nodes_falsenodeids', 'nodes_missing_value_tracks_true', 'target_treeids', 'target_nodeids', 'target_ids',
        'target_weights')}
    tree_id = 0
    for target, booster in enumerate(boosters):
        for tree in booster.dump_model()['tree_info']:
            count = 0

            def visit(node):
                nonlocal count
                node_id = count
                count += 1
                at = len(a['nodes_nodeids'])
                a['nodes_treeids'].append(tree_id)
                a['nodes_nodeids'].append(node_id)
                for name in ('nodes_featureids', 'nodes_truenodeids', 'nodes_falsenodeids',
                             'nodes_missing_value_tracks_true'):
                    a[name].append(0)
                a['nodes_values'].append(0.0)
                a['nodes_modes'].append('LEAF')
                if 'leaf_value' in node:
                    a['target_treeids'].append(tree_id)
                    a['target_nodeids'].append(node_id)
                    a['target_ids'].append(target)
                    a['target_weights'].append(float(node['leaf_value']))
                    return node_id
                if node['decision_type'] != '<=' or node['missing_type'] not in ('None', 'NaN'):
                    raise ValueError(f"cannot export a split {node['decision_type']}, {node['missing_type']}")
                a['nodes_modes'][at] = 'BRANCH_LEQ'
                a['nodes_featureids'][at] = node['split_feature']
                a['nodes_values'][at] = float32_below(node['threshold'])
                # With missing_type None LightGBM reads a missing value as 0.
                left = node['default_left'] if node['missing_type'] == 'NaN' else node['threshold'] >= 0
                a['nodes_missing_value_tracks_true'][at] = int(left)
                a['nodes_truenodeids'][at] = visit(node['left_child'])
                a['nodes_falsenodeids'][at] = visit(node['right_child'])
                return node_id

            visit(tree['tree_structure'])
            tree_id += 1
    return a


def export(boosters, calibration, feature_count, file):
    """`calibration` is [(scale, offset)] per booster: hazard = sigmoid(scale * raw + offset)."""
    bins = len(boosters)
    nodes = [
        helper.make_node('TreeEnsembleRegressor', ['features'], ['raw'], domain='ai.onnx.ml', n_targets=bins,
                         post_transform='NONE', aggregate_function='SUM', **tree_ensemble(boosters)),
        helper.make_node('Mul', ['raw', 'scale'], ['scaled']),
        helper.make_node('Add', ['scaled', 'offset'], ['logit']),
        helper.make_node('Sigmoid', ['logit'], ['hazard']),
    ]
    constants = [
        helper.make_tensor('scale', TensorProto.FLOAT, [bins], [s for s, _ in calibration]),
        helper.make_tensor('offset', TensorProto.FLOAT, [bins], [o for _, o in calibration]),
    ]
    graph = helper.make_graph(
        nodes, 'understudy-hazard',
        [helper.make_tensor_value_info('features', TensorProto.FLOAT, ['rows', feature_count])],
        [helper.make_tensor_value_info('hazard', TensorProto.FLOAT, ['rows', bins])], constants)
    model = helper.make_model(graph, producer_name='understudy', ir_version=9, opset_imports=[
        helper.make_opsetid('', 17), helper.make_opsetid('ai.onnx.ml', 3)])
    checker.check_model(model)
    with open(file, 'wb') as out:
        out.write(model.SerializeToString(deterministic=True))
