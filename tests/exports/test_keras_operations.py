"""A Keras model computes what the PyTorch network does, whatever the settings of its operations."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from thaw.errors import ExportError
from thaw.exports.keras_graph import model_of
from thaw.exports.keras_operations import OPERATIONS
from thaw.keras_runtime import keras

# Keras converts tensors in a way that NumPy deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CHANNELS, SIDE = 4, 9


class OnMaps(nn.Module):
    """Images (N, H, W, C) as maps (N, C, H, W) through a network, and maps back."""

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        result = self.network(images.permute(0, 3, 1, 2))
        return result.permute(0, 2, 3, 1) if result.ndim == 4 else result


class Weighted(nn.Module):
    """A function of maps, a trained vector of the channels and a fixed one."""

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.trained = nn.Parameter(torch.linspace(-1.5, 2.0, CHANNELS))
        self.register_buffer("fixed", torch.linspace(0.5, 2.0, CHANNELS))

    def forward(self, maps: Tensor) -> Tensor:
        return self.function(maps, self.trained, self.fixed)


def keras_model(network: Any, side: int = SIDE, channels: int = CHANNELS) -> tuple[Any, np.ndarray, np.ndarray]:
    """The Keras model, some images, and what the network gives for them."""
    generator = torch.Generator().manual_seed(0)
    module = OnMaps(network).eval()
    with torch.no_grad():
        for value in (*module.parameters(), *module.buffers()):
            if value.is_floating_point() and value.ndim != 1:
                value.copy_(torch.randn(value.shape, generator=generator))
            elif value.is_floating_point() and not isinstance(network, Weighted):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        images = torch.randn(3, side, side, channels, generator=generator)
        with warnings.catch_warnings():
            # PyTorch warns about deprecated parts of itself.
            warnings.simplefilter("ignore")
            program = torch.export.export(module, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
        expected = module(images).numpy()
    return model_of(program, OPERATIONS, "network"), images.numpy(), expected


def largest_difference(network: Any, side: int = SIDE, channels: int = CHANNELS) -> float:
    model, images, expected = keras_model(network, side, channels)
    found = model(images).detach().numpy()
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max())


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Conv2d:
    """Of four channels: plain, grouped and depthwise, with every padding, and with a stride or a dilation."""
    stride = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (3, 3)]))
    dilation = draw(st.sampled_from([(1, 1), (2, 2), (1, 2)])) if stride == (1, 1) else (1, 1)
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    padding: Any = (draw(st.integers(0, 3)), draw(st.integers(0, 3)))
    if stride == (1, 1) and draw(st.booleans()):
        padding = draw(st.sampled_from(["same", "valid"]))
    groups = draw(st.sampled_from([1, 2, CHANNELS]))
    outputs, has_bias = CHANNELS * draw(st.integers(1, 2)), draw(st.booleans())
    return nn.Conv2d(CHANNELS, outputs, kernel, stride, padding, dilation, groups, has_bias)


@given(convolution=convolutions(), side=st.integers(8, 11))
@settings(max_examples=15, deadline=None)
def test_convolutions_pad_group_and_dilate_alike(convolution: nn.Conv2d, side: int) -> None:
    assert largest_difference(convolution, side) < 1e-4


@st.composite
def poolings(draw: st.DrawFn) -> nn.Module:
    """Maxima of negative values too, and averages with padding; not all settings of averages exist in Keras."""
    size = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    padding = (draw(st.integers(0, size[0] // 2)), draw(st.integers(0, size[1] // 2)))
    if draw(st.booleans()):
        first = draw(st.sampled_from([nn.Identity(), nn.ReLU(), nn.LeakyReLU()]))
        return nn.Sequential(first, nn.MaxPool2d(size, stride, padding, ceil_mode=draw(st.booleans())))
    return nn.AvgPool2d(size, stride, padding)


@given(pooling=poolings(), side=st.integers(8, 11))
@settings(max_examples=15, deadline=None)
def test_poolings_pad_alike(pooling: nn.Module, side: int) -> None:
    assert largest_difference(pooling, side) < 1e-5


def in_place(maps: Tensor) -> Tensor:
    changed = functional.dropout(maps * 2.0, 0.5, False)
    changed.relu_()
    return changed + maps


def shuffled(maps: Tensor) -> Tensor:
    return maps.reshape(maps.shape[0], 2, 2, SIDE, SIDE).permute(0, 2, 1, 3, 4).flatten(1, 2)


def padded_maximum(maps: Tensor) -> Tensor:
    return functional.max_pool2d(functional.pad(maps, (0, 1), value=-torch.inf), 2)


FUNCTIONS: dict[str, Any] = {
    "batch_norm": nn.BatchNorm2d(CHANNELS, eps=1e-2),
    "batch_norm without scale": nn.BatchNorm2d(CHANNELS, affine=False),
    "layer_norm": lambda x: functional.layer_norm(x.permute(0, 2, 3, 1), (CHANNELS,)).permute(0, 3, 1, 2),
    "group_norm": nn.GroupNorm(2, CHANNELS),
    "linear on channels": lambda x: functional.linear(x.permute(0, 2, 3, 1), torch.ones(3, CHANNELS)).mean((1, 2)),
    "linear on flattened maps": nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * SIDE * SIDE, 3)),
    "activations": lambda x: functional.hardswish(x) + functional.hardsigmoid(x) + functional.silu(x) + x.relu(),
    "bounded activations": lambda x: functional.relu6(3 * x) + functional.hardtanh(x) + x.clamp(-0.5, 0.7),
    "smooth activations": lambda x: functional.mish(x) + functional.elu(x) + functional.softplus(x) + x.tanh(),
    "gelu": lambda x: functional.gelu(x) + functional.gelu(x, approximate="tanh"),
    "softmax over channels": lambda x: x.softmax(1),
    "squeeze and excite": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "statistics": lambda x: torch.cat([x.mean((2, 3)), (x.square().mean((2, 3)) + 1e-6).sqrt()], 1),
    "reductions": lambda x: torch.stack([x.amax((2, 3)), x.amin((2, 3)), x.sum((2, 3))], 1),
    "one axis reduced": lambda x: x.mean(3).amax(1),
    "adaptive pooling": nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.AdaptiveMaxPool2d(1), nn.Flatten()),
    "average without padding": nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "numbers": lambda x: 1.0 - (2.0 * x + 3.0) / 4.0 - x,
    "in place": in_place,
    "normalised by constants": Weighted(lambda x, _, c: (x - c.view(1, -1, 1, 1)) / c.view(1, -1, 1, 1)),
    "normalised by negative constants": Weighted(lambda x, p, c: (x.permute(0, 2, 3, 1) - c) / p),
    "shifted by constants": Weighted(lambda x, _, c: x + c.view(1, -1, 1, 1) - c.view(-1, 1, 1) * 3.0),
    "scaled by parameters": Weighted(lambda x, p, _: x * p.view(1, -1, 1, 1) / p.view(1, -1, 1, 1)),
    "channels reversed": lambda x: x.flip(1),
    "channels selected": lambda x: x[:, [2, 0, 3]] + x[:, 1:4] + x.select(1, 2).unsqueeze(1),
    "maps cropped": lambda x: x[:, :, 1:-1, 2:],
    "channels split": lambda x: torch.cat([*x.chunk(2, 1)[::-1], *x.split([1, 3], 1)], 1),
    "channels shuffled": shuffled,
    "padded and cropped": lambda x: functional.pad(functional.pad(x, (0, 1, 2, 3)), (-1, 0, 0, -2)),
    "maximum padded with minus infinity": lambda x: functional.max_pool2d(
        functional.pad(x, (0, 1), value=-torch.inf), 2
    ),
    "positions as a sequence": lambda x: x.flatten(2).transpose(1, 2).mean(1),
    "quotients": lambda x: x / (x.abs() + 1e-3),
    "powers": lambda x: x.pow(2) + (x.abs() + 1).pow(0.5) + (x.abs() + 1).rsqrt(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operations_compute_the_same(name: str) -> None:
    assert largest_difference(FUNCTIONS[name]) < 1e-5


@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        (nn.Conv2d(CHANNELS, 4, 3, stride=2, dilation=2), r"aten\.conv2d\.default in network cannot be expressed"),
        (nn.Sequential(nn.ReLU(), nn.PixelShuffle(2)), r"pixel_shuffle\.default in network\.1 has no counterpart"),
        (nn.AvgPool2d(3, 2, 1, count_include_pad=False), "it leaves out the padding, with a stride"),
        (nn.MaxPool2d(3, dilation=2), "it is dilated"),
        (nn.ReflectionPad2d(1), "it pads with reflect"),
        (lambda x: x.double(), "another number format"),
        (lambda x: x.flatten(0, 1), "it mixes images"),
    ],
)
def test_what_keras_cannot_express_is_refused_with_the_operation_and_its_module(network: Any, complaint: str) -> None:
    with pytest.raises(ExportError, match=complaint) as refused:
        keras_model(network)
    assert str(refused.value).endswith("export to onnx or torch")


def test_layers_have_the_names_of_their_modules_and_parameters_stay_trainable() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, 2, 1)
            self.bn = nn.BatchNorm2d(CHANNELS)
            self.gamma = nn.Parameter(torch.ones(CHANNELS))

        def forward(self, maps: Tensor) -> Tensor:
            value = self.bn(self.conv(maps))
            return value + value * self.gamma.reshape(1, -1, 1, 1)

    model, *_ = keras_model(nn.Sequential(Block(), nn.Sequential(nn.Flatten(), nn.Linear(100, 2))))
    kinds = {layer.name: type(layer).__name__ for layer in model.layers}
    assert kinds["network_0_conv"] == "Conv2D" and kinds["network_0_conv_pad"] == "ZeroPadding2D"
    assert kinds["network_0_bn"] == "BatchNormalization" and kinds["network_0_add"] == "Add"
    trained = {variable.path for variable in model.trainable_variables}
    assert {"network_0_bn/gamma", "network_0_conv/kernel", "network_0_scale/kernel"} <= trained


def test_a_model_of_operations_of_keras_ops_is_saved_without_code(tmp_path: Path) -> None:
    network = FUNCTIONS["maximum padded with minus infinity"]
    model, images, expected = keras_model(network)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(loaded(images).detach().numpy(), expected, atol=1e-6)
    config = json.loads(zipfile.ZipFile(tmp_path / "model.keras").read("config.json"))
    assert "Lambda" not in json.dumps(config)
