"""Writes tiny.onnx: hazards that follow the first feature (heap as share of its limit), for tests of the engine."""
import onnx
from onnx import TensorProto, helper, numpy_helper
import numpy as np

bins = 4
nodes = [
    helper.make_node("Gather", ["features", "column"], ["share"], axis=1),
    helper.make_node("IsNaN", ["share"], ["missing"]),
    helper.make_node("Where", ["missing", "zero", "share"], ["known"]),
    helper.make_node("MatMul", ["known", "scale"], ["scaled"]),
    helper.make_node("Add", ["scaled", "offset"], ["raw"]),
    helper.make_node("Sigmoid", ["raw"], ["hazard"]),
]
constants = [
    numpy_helper.from_array(np.array([0], dtype=np.int64), "column"),
    numpy_helper.from_array(np.zeros((1, 1), dtype=np.float32), "zero"),
    numpy_helper.from_array(np.full((1, bins), 30, dtype=np.float32), "scale"),
    numpy_helper.from_array(np.array([-27, -24, -21, -18], dtype=np.float32), "offset"),
]
graph = helper.make_graph(
    nodes,
    "tiny",
    [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", "columns"])],
    [helper.make_tensor_value_info("hazard", TensorProto.FLOAT, ["rows", bins])],
    constants,
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
onnx.checker.check_model(model)
onnx.save(model, "tiny.onnx")
