"""Every layer computes what Keras's layer of the same configuration computes."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thaw.backbones.keras.activations import ACTIVATIONS
from thaw.backbones.keras.graph import Node
from thaw.backbones.keras.layers import build_layer
from thaw.backbones.keras.weighted import Weighted
from thaw.errors import BackboneError

pytestmark = pytest.mark.skipif(find_spec("keras") is None, reason="needs the extra keras")

CHANNELS = 4


def difference(kind: str, shape: tuple[int, int] = (9, 11), **config: Any) -> float:
    """How far a layer's output is from that of Keras's layer with the same random weights."""
    from thaw.keras_runtime import keras

    layer = getattr(keras.layers, kind)(**config)
    random = np.random.default_rng(0)
    values = random.standard_normal((2, *shape, CHANNELS)).astype(np.float32)
    layer.build(values.shape)
    arrays = [random.uniform(0.5, 1.5, variable.shape).astype(np.float32) for variable in layer.weights]
    layer.set_weights(arrays)
    module = build_layer(Node(("layer",), kind, ("input",), json.loads(json.dumps(layer.get_config()))), CHANNELS)
    if isinstance(module, Weighted):
        assert [tensor.shape for tensor in module.keras_tensors()] == [array.shape for array in arrays]
        module.load_keras(arrays)
    with torch.no_grad():
        wanted = layer(torch.from_numpy(values), training=False)
        found = module.eval()(torch.from_numpy(values).permute(0, 3, 1, 2))
    found = found.permute(0, 2, 3, 1) if found.ndim == 4 else found
    assert found.shape == wanted.shape
    return float((wanted - found).abs().max() / wanted.abs().max().clamp(min=1e-6))


sizes = st.integers(1, 4)
shapes = st.tuples(st.integers(8, 13), st.integers(8, 13))
paddings = st.sampled_from(["same", "valid"])


@settings(max_examples=20, deadline=None)
@given(shapes, st.tuples(sizes, sizes), st.integers(1, 3), st.integers(1, 2), paddings, st.sampled_from([1, 2]))
def test_convolutions_of_any_size_stride_dilation_and_padding(
    shape: tuple[int, int], kernel: tuple[int, int], stride: int, dilation: int, padding: str, groups: int
) -> None:
    dilation = dilation if stride == 1 else 1
    config = {"kernel_size": kernel, "strides": stride, "dilation_rate": dilation, "padding": padding}
    assert difference("Conv2D", shape, filters=6, groups=groups, activation="relu", **config) < 1e-5


@settings(max_examples=25, deadline=None)
@given(shapes, sizes, st.integers(1, 3), st.integers(1, 2), paddings, st.sampled_from(["Depthwise", "Separable"]))
def test_depthwise_and_separable_convolutions(
    shape: tuple[int, int], kernel: int, stride: int, multiplier: int, padding: str, kind: str
) -> None:
    config = {"kernel_size": kernel, "strides": stride, "padding": padding, "depth_multiplier": multiplier}
    more = {"filters": 5} if kind == "Separable" else {}
    assert difference(f"{kind}Conv2D", shape, **config, **more) < 1e-5


@settings(max_examples=25, deadline=None)
@given(shapes, st.tuples(sizes, sizes), st.integers(1, 3), paddings, st.sampled_from(["Max", "Average"]))
def test_pooling(shape: tuple[int, int], size: tuple[int, int], stride: int, padding: str, kind: str) -> None:
    if kind == "Max" or padding == "valid":
        assert difference(f"{kind}Pooling2D", shape, pool_size=size, strides=stride, padding=padding) < 1e-5
        return
    # Keras on PyTorch counts repeated rows and columns here, so the reference is TensorFlow's rule itself.
    config = {"pool_size": size, "strides": stride, "padding": padding}
    module = build_layer(Node(("layer",), "AveragePooling2D", ("input",), config), CHANNELS)
    values = torch.randn(2, CHANNELS, *shape, generator=torch.Generator().manual_seed(0))
    starts = [
        [at * stride - max((-(-side // stride) - 1) * stride + pool - side, 0) // 2 for at in range(-(-side // stride))]
        for side, pool in zip(shape, size, strict=True)
    ]
    for row, top in enumerate(starts[0]):
        for column, left in enumerate(starts[1]):
            window = values[:, :, max(top, 0) : top + size[0], max(left, 0) : left + size[1]]
            torch.testing.assert_close(module(values)[:, :, row, column], window.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    "name", sorted(ACTIVATIONS.keys() - {"swish", "hard_swish", "softmax", "hard_sigmoid of Keras 2"})
)
def test_activations(name: str) -> None:
    assert difference("Activation", activation=name) < 1e-5


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("Dense", {"units": 3, "activation": "gelu"}),
        ("BatchNormalization", {"epsilon": 0.01}),
        ("BatchNormalization", {"scale": False}),
        ("BatchNormalization", {"center": False}),
        ("LayerNormalization", {}),
        ("Normalization", {}),
        ("Normalization", {"mean": [1.0, 2.0, 3.0, 4.0], "variance": [2.0, 1.0, 3.0, 0.5]}),
        ("Rescaling", {"scale": 0.5, "offset": -1.0}),
        ("Rescaling", {"scale": [1.0, 2.0, 3.0, 4.0]}),
        ("ReLU", {}),
        ("ReLU", {"max_value": 6.0}),
        ("ReLU", {"max_value": 0.5, "negative_slope": 0.1, "threshold": 0.2}),
        ("LeakyReLU", {"negative_slope": 0.3}),
        ("ELU", {"alpha": 0.7}),
        ("ZeroPadding2D", {"padding": ((1, 2), (0, 3))}),
        ("Cropping2D", {"cropping": ((1, 2), (0, 3))}),
        ("GlobalAveragePooling2D", {}),
        ("GlobalMaxPooling2D", {"keepdims": True}),
        ("Flatten", {}),
        ("Dropout", {"rate": 0.5}),
        ("RandomFlip", {}),
    ],
)
def test_other_layers(kind: str, config: dict[str, Any]) -> None:
    assert difference(kind, **config) < 1e-5


@pytest.mark.parametrize(
    ("kind", "config", "reason"),
    [
        ("Lambda", {"function": "code"}, "layer 'block/x' (Lambda): this class is not supported"),
        ("Conv2D", {"data_format": "channels_first"}, "save the model with channels_last"),
        ("Activation", {"activation": {"class_name": "Mine"}}, "is not supported; supported are"),
        ("Conv2D", {"padding": "same"}, "its configuration cannot be read"),
        ("BatchNormalization", {"axis": 1}, "axis 1 is not supported"),
        ("Reshape", {"target_shape": [7, 7, 4]}, "only (1, 1, C) and (C,)"),
    ],
)
def test_what_is_not_supported_is_refused_with_its_name(kind: str, config: dict[str, Any], reason: str) -> None:
    with pytest.raises(BackboneError) as error:
        build_layer(Node(("block", "x"), kind, ("input",), config), CHANNELS)
    assert reason in str(error.value)
    assert "block/x" in str(error.value)
