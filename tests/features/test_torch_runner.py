from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from thaw.backbones.contract import Backbone
from thaw.backbones.timm_backbone import build
from thaw.classifier.classifier import Classifier
from thaw.classifier.head import Head
from thaw.features.torch_runner import Frozen, TorchRunner, _Captured
from thaw.recipe import DecodeSettings, PreprocessingSettings

PIXELS = torch.randint(256, (3, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Graph:
    """As a CUDA graph: it computes with what lay where the weights were when it was captured."""

    def __init__(self, module: nn.Module, pixels: Tensor) -> None:
        weights = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        self._weights = {name: value.detach() for name, value in weights.items()}
        self._module, self._pixels = module, pixels
        self.outputs: tuple[Tensor, ...] = module(pixels)

    def replay(self) -> None:
        found = functional_call(self._module, self._weights, (self._pixels,))
        for output, value in zip(self.outputs, found, strict=True):
            output.copy_(value)


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shape of the pixels of each capture."""
    made: list[torch.Size] = []

    def capture(self: _Captured, pixels: Tensor) -> tuple[Graph, Tensor, tuple[Tensor, ...]]:
        made.append(pixels.shape)
        inputs = pixels.clone()
        graph = Graph(self._frozen, inputs)
        return graph, inputs, graph.outputs

    monkeypatch.setattr(_Captured, "_capture", capture)
    return made


def backbone() -> Backbone:
    return build("mobilenetv3_small_050", "random", PreprocessingSettings(image_size=32), "avg", 0)


def test_a_graph_is_captured_once_for_each_power_of_two(captures: list[torch.Size]) -> None:
    network = backbone()
    runner = TorchRunner(network, torch.device("cpu"), "fp32", [network.head_position], "cuda_graph")
    for images in (3, 2, 33, 40, 1):
        runner.run(PIXELS[:1].repeat(images, 1, 1, 1))
    assert [shape[0] for shape in captures] == [32, 64]


def in_new_memory(network: Backbone) -> None:
    for parameter in network.parameters():
        parameter.data = 1.1 * parameter.data


def moved_away_and_changed(network: Backbone) -> None:
    network.double()
    network.float()
    next(network.parameters()).data.mul_(2)


@pytest.mark.parametrize("change", [in_new_memory, moved_away_and_changed])
def test_a_captured_network_computes_with_its_weights_wherever_they_lie(
    change: Callable[[Backbone], None], captures: list[torch.Size]
) -> None:
    network = backbone()
    runner, frozen = (
        TorchRunner(network, torch.device("cpu"), "fp32", [network.head_position], "cuda_graph"),
        Frozen(network, [network.head_position]),
    )
    (before,) = runner.run(PIXELS)
    change(network)
    (after,) = runner.run(PIXELS)
    with torch.no_grad():
        expected, *_ = frozen(PIXELS)
    assert torch.allclose(after.values, expected, atol=1e-5)
    assert not torch.allclose(after.values, before.values, atol=1e-5)
    assert len(captures) == 2


def test_a_new_head_leaves_the_weights_of_a_captured_network_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    network = backbone()
    # Depthwise networks have another layout there than on a CPU.
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    network.use_memory_format("contiguous")
    before = [parameter.data_ptr() for parameter in network.parameters()]
    head = Head(network.feature_width, 2, (), 0.0, seed=0)
    Classifier(network, head, ("a", "b"), "multiclass", DecodeSettings())
    assert [parameter.data_ptr() for parameter in network.parameters()] == before
