from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from thaw.backbones.stages import AtCut
from thaw.recipe import Steps
from thaw.training.steps import STEPS, AboveCut


class Network(nn.Module):
    """A norm that renews its statistics, called as a classifier is."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, inputs: AtCut, position: int) -> Tensor:
        return self.norm(inputs.values) + inputs.stages.sum() * position


def inputs(images: int) -> AtCut:
    return AtCut(torch.randn(images, 3, generator=torch.Generator().manual_seed(images)), torch.ones(images, 2))


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of images of each capture, which warms up three times."""
    made: list[int] = []

    def capture(module: nn.Module, sample: tuple[Tensor, ...], **_: Any) -> Callable[..., Tensor]:
        made.append(len(sample[0]))
        for _ in range(3):
            module(*sample)
        return module

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    yield made


def test_every_value_of_the_setting_has_a_mode() -> None:
    assert set(STEPS) == set(get_args(Steps))


def test_one_graph_is_captured_for_each_number_of_images(captures: list[int]) -> None:
    captured = STEPS["cuda_graph"](AboveCut(Network(), 2, "fp32", {}))
    captured.prepare([4, 3, 4, 4, 3], inputs)
    captured.prepare([4], inputs)
    assert captures == [3, 4]
    assert captured(*inputs(5)).shape == (5, 3)
    assert captures == [3, 4]


def test_capturing_leaves_statistics_and_results_as_they_are(captures: list[int]) -> None:
    eager, captured = (STEPS[mode](AboveCut(Network(), 2, "fp32", {})) for mode in ("eager", "cuda_graph"))
    for images in (4, 3):
        captured.prepare([images], inputs)
        assert torch.equal(captured(*inputs(images)), eager(*inputs(images)))
    assert isinstance(captured, nn.Module) and isinstance(eager, nn.Module)
    for found, expected in zip(captured.buffers(), eager.buffers(), strict=True):
        assert torch.equal(found, expected)
    assert captures


def test_what_lies_above_a_cut_gives_single_precision_in_either_format() -> None:
    for precision in ("fp32", "bf16"):
        assert AboveCut(Network(), 0, precision, {})(*inputs(4)).dtype == torch.float32


def test_graphs_are_captured_anew_where_the_weights_lie_elsewhere(captures: list[int]) -> None:
    above = AboveCut(Network(), 2, "fp32", {})
    captured = STEPS["cuda_graph"](above)
    captured.prepare([4], inputs)
    for parameter in above.parameters():
        parameter.data = parameter.data.clone()
    captured.prepare([4], inputs)
    assert captures == [4, 4]
