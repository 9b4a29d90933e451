from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from thaw.backbones.random_weights import randomise
from thaw.backbones.stages import AtCut
from thaw.backbones.timm_backbone import build
from thaw.classifier.classifier import Classifier, new_head
from thaw.recipe import DecodeSettings, PreprocessingSettings
from thaw.training.autocast import training_autocast
from thaw.training.folding import FrozenNorms, folded, frozen_norms

CPU = torch.device("cpu")


class Network(nn.Module):
    """A convolution and a norm, called as a classifier is."""

    device = CPU

    def __init__(self, bias: bool = False, affine: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 5, 3, bias=bias)
        self.norm = nn.BatchNorm2d(5, affine=affine)
        for values in (self.norm.running_mean, self.norm.running_var, *self.norm.parameters()):
            assert values is not None
            nn.init.uniform_(values, 0.5, 2.0)
        self.eval()

    def forward(self, inputs: AtCut, position: int) -> Tensor:
        return self.norm(self.convolution(inputs.values))


class UsedTwice(Network):
    def forward(self, inputs: AtCut, position: int) -> Tensor:
        values = self.convolution(inputs.values)
        return self.norm(values) + values


class Shared(Network):
    def forward(self, inputs: AtCut, position: int) -> Tensor:
        return self.norm(self.convolution(inputs.values)) + self.convolution(inputs.values + 1.0)


class Between(Network):
    def forward(self, inputs: AtCut, position: int) -> Tensor:
        return self.norm(functional.relu(self.convolution(inputs.values)))


def maps(*shape: int) -> AtCut:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return AtCut.above_nothing(values.contiguous(memory_format=torch.channels_last))


def gradients(network: nn.Module, inputs: AtCut, position: int, norms: FrozenNorms) -> tuple[Tensor, dict[str, Tensor]]:
    """The outputs in training, and the gradient of every parameter that trains."""
    network.zero_grad()
    with folded(norms):
        outputs = network(inputs, position)
    outputs.square().sum().backward()
    return outputs.detach(), {name: value.grad for name, value in network.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_outputs_and_gradients_are_those_of_the_norm(bias: bool, affine: bool) -> None:
    network, inputs = Network(bias, affine), maps(4, 3, 7, 6)
    norms = frozen_norms(network, 0, inputs)  # type: ignore[arg-type]
    assert list(map(id, norms)) == [id(network.convolution.weight)]
    expected, slopes = gradients(network, inputs, 0, {})
    outputs, found = gradients(network, inputs, 0, norms)
    assert torch.allclose(outputs, expected, atol=1e-5) and found.keys() == slopes.keys()
    assert all(torch.allclose(found[name], slopes[name], rtol=1e-4, atol=1e-3) for name in slopes)


@pytest.mark.parametrize("kind", [UsedTwice, Shared, Between])
def test_a_norm_is_left_alone_where_something_else_takes_what_it_takes(kind: type[Network]) -> None:
    network = kind()
    assert not frozen_norms(network, 0, maps(2, 3, 7, 7))  # type: ignore[arg-type]


def classifier_of(name: str, cut: str) -> tuple[Classifier, int, AtCut]:
    backbone = build(name, "random", PreprocessingSettings(image_size=64))
    randomise(backbone.network, torch.Generator().manual_seed(0))
    backbone.use_features("all")
    classifier = Classifier(backbone, new_head(backbone, 3), "abc", "multiclass", DecodeSettings())
    nn.init.normal_(classifier.head.layers[-1].weight, std=0.05, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    position = backbone.cut(cut).position
    backbone.thaw(backbone.cut(cut), "frozen")
    with torch.no_grad():
        at = backbone.advance(maps(4, 3, 64, 64), 0, position)
    return classifier, position, at


@pytest.mark.parametrize(("name", "cut"), [("mobilenetv2_050", "stages:3"), ("resnet18", "layer4")])
def test_every_norm_above_a_cut_is_folded_and_the_gradients_stay_the_same(name: str, cut: str) -> None:
    classifier, position, inputs = classifier_of(name, cut)
    norms = frozen_norms(classifier, position, inputs)
    assert len(norms) == sum(
        isinstance(module, nn.BatchNorm2d)
        for start, end in classifier.backbone.modules_in_order()
        if end > position
        for module in start.modules()
    )
    expected, slopes = gradients(classifier, inputs, position, {})
    outputs, found = gradients(classifier, inputs, position, norms)
    assert torch.allclose(outputs, expected, rtol=1e-4, atol=1e-4) and found.keys() == slopes.keys()
    assert all((found[name] - slopes[name]).norm() <= 1e-3 * slopes[name].norm() + 1e-5 for name in slopes)


def test_folding_changes_nothing_outside_its_context_and_none_does_nothing() -> None:
    network, inputs = Network(), maps(2, 3, 7, 7)
    before = network(inputs, 0)
    with folded(frozen_norms(network, 0, inputs)):  # type: ignore[arg-type]
        network(inputs, 0)
    assert torch.equal(network(inputs, 0), before)
    assert isinstance(folded({}), nullcontext)


def test_a_depthwise_layer_that_is_slow_in_bf16_is_still_computed_in_fp32() -> None:
    network = Network()
    network.convolution = nn.Conv2d(5, 5, 3, stride=2, groups=5, bias=False)
    inputs = maps(2, 5, 9, 9)
    norms = frozen_norms(network, 0, inputs)  # type: ignore[arg-type]
    assert len(norms) == 1
    with folded(norms):
        exact = network(inputs, 0)
    with training_autocast(CPU, "bf16"), folded(norms):
        rounded = network(inputs, 0)
    assert rounded.dtype == torch.bfloat16 and torch.equal(rounded, exact.bfloat16())
