"""Weights of an ONNX graph are rounded to what int8 represents so that outputs change less than by nearest values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from thaw.backbones.rounding import LEVELS, SEVEN_BIT_LEVELS
from thaw.exports.onnx_graph import convolutions
from thaw.exports.onnx_rounding import round_weights, statistics_of
from thaw.exports.onnx_runtime import onnxruntime

CHANNELS, SIDE = 6, 24
SHAPES = {
    # A dilated dense convolution without a bias, a grouped one, and depthwise ones, one of which doubles the channels.
    "dense": ((5, CHANNELS, 3, 3), {"dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    "grouped": ((4, CHANNELS // 2, 3, 3), {"group": 2, "strides": [2, 2]}),
    "depthwise": ((CHANNELS, 1, 3, 3), {"group": CHANNELS, "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    "wide": ((2 * CHANNELS, 1, 5, 5), {"group": CHANNELS, "pads": [2, 2, 2, 2]}),
}


def model_of(name: str) -> Any:
    shape, attributes = SHAPES[name]
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    inputs, stored = ["images", "weights"], [numpy_helper.from_array(weights, "weights")]
    if name != "dense":
        inputs.append("bias")
        stored.append(numpy_helper.from_array(np.ones(shape[0], np.float32), "bias"))
    graph = helper.make_graph(
        [helper.make_node("Conv", inputs, ["out"], "conv", **attributes)],
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, CHANNELS, SIDE, SIDE))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def smooth_images() -> list[np.ndarray]:
    """Positive, as after a ReLU, with neighbouring pixels alike."""
    noise = np.random.default_rng(1).normal(size=(4, 1, CHANNELS, SIDE, SIDE)).astype(np.float32)
    coarse = np.kron(noise[..., ::6, ::6], np.ones((6, 6), np.float32))
    return list(np.maximum(coarse + 0.2 * noise + 1.0, 0.0))


def outputs(model: Any, images: list[np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"images": image})[0] for image in images])


def weights_of(model: Any) -> np.ndarray:
    return next(numpy_helper.to_array(item) for item in model.graph.initializer if item.name == "weights")


@pytest.mark.parametrize("name", SHAPES)
def test_rounded_weights_are_those_of_int8_and_keep_the_mean_of_every_output(name: str) -> None:
    model, images = model_of(name), smooth_images()
    before, weights = outputs(model, images), weights_of(model)
    scales = round_weights(model, statistics_of(model, ({"images": image} for image in images)))
    scale = scales["weights"][:, None, None, None]
    steps = weights_of(model) / scale
    assert np.abs(steps - np.rint(steps)).max() < 1e-3
    assert np.abs(steps - weights / scale).max() < 1.0
    levels = LEVELS if weights.shape[1] == 1 else SEVEN_BIT_LEVELS
    np.testing.assert_allclose(np.abs(steps).max(axis=(1, 2, 3)), levels, rtol=1e-5)
    after = outputs(model, images)
    np.testing.assert_allclose(after.mean(axis=(0, 2, 3)), before.mean(axis=(0, 2, 3)), atol=1e-4)
    nearest = model_of(name)
    rounded = (np.rint(weights / scale) * scale).astype(np.float32)
    nearest.graph.initializer[0].CopyFrom(numpy_helper.from_array(rounded, "weights"))
    error, of_nearest = (np.square(found - before).mean() for found in (after, outputs(nearest, images)))
    assert error < (0.3 if weights.shape[1] == 1 else 1.0) * of_nearest


def test_weights_that_are_zero_stay_zero() -> None:
    model = model_of("depthwise")
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.zeros(SHAPES["depthwise"][0], np.float32), "weights")
    )
    round_weights(model, statistics_of(model, [{"images": smooth_images()[0]}]))
    assert not weights_of(model).any()


def test_weights_that_two_convolutions_share_are_left_alone() -> None:
    model = model_of("depthwise")
    assert len(convolutions(model)) == 1
    model.graph.node.append(helper.make_node("Conv", ["images", "weights"], ["second"], "second", group=CHANNELS))
    assert convolutions(model) == []
