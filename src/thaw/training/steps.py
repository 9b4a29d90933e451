"""How PyTorch runs the forward and backward pass of a training step: operation by operation, captured, or compiled.

On a GPU a step above a cut is over before the next operation is launched. Captured once as a CUDA graph and then
replayed, it has one launch. Images per second in bf16 (H200): top of MobileNetV2, batch 32, 3,490 -> 16,137; `layer4`
of ResNet50, batch 32, 3,744 -> 14,716; all of ResNet50, batch 32, 1,035 -> 2,764, batch 256, 3,460 -> 3,514.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from thaw.backbones.stages import AtCut
from thaw.device import addresses_of, current_on
from thaw.features.torch_runner import Precision
from thaw.recipe import Steps
from thaw.training.autocast import training_autocast
from thaw.training.folding import FrozenNorms, folded


class StepModel(Protocol):
    """What lies above a cut, in one of the modes to run it in."""

    def __call__(self, values: Tensor, stages: Tensor) -> Tensor:
        """Logits (N, outputs) float32 of the two parts of an `AtCut`."""
        ...

    def prepare(self, sizes: Iterable[int], sample: Callable[[int], AtCut]) -> None:
        """Make ready for batches of some sizes, while no other thread uses the device; `sample` gives one."""
        ...

    def train(self, mode: bool = True) -> nn.Module:
        """As `torch.nn.Module.train`."""
        ...


class AboveCut(nn.Module):
    """Everything above a cut, from what lies there to the logits, as a function of tensors only."""

    def __init__(self, classifier: nn.Module, position: int, precision: Precision, norms: FrozenNorms) -> None:
        """Take a classifier, or what wraps one.

        Args:
            classifier: Called as `Classifier` is.
            position: The position of the cut.
            precision: Number format of the forward pass, which the backward pass keeps.
            norms: Those that are computed in the convolutions before them.
        """
        super().__init__()
        self.classifier = classifier
        self._position, self._precision, self._norms = position, precision, norms

    def forward(self, values: Tensor, stages: Tensor) -> Tensor:
        """Logits (N, outputs) float32 of the two parts of an `AtCut`."""
        with training_autocast(values.device, self._precision), folded(self._norms):
            logits: Tensor = self.classifier(AtCut(values, stages), self._position)
        return logits.float()

    def prepare(self, sizes: Iterable[int], sample: Callable[[int], AtCut]) -> None:
        """Nothing has to be prepared."""


class CapturedSteps(nn.Module):
    """Forward and backward passes that are replayed from CUDA graphs, one for each number of images.

    An epoch has two at most. What is drawn at random, as by dropout, differs from replay to replay. Other numbers of
    images than those that were prepared are run eagerly. Weights must stay where they are until the next `prepare`.
    """

    def __init__(self, above: AboveCut) -> None:
        super().__init__()
        self.above = above
        self._addresses: tuple[int, ...] = ()
        self._graphs: dict[int, Callable[..., Any]] = {}

    def forward(self, values: Tensor, stages: Tensor) -> Tensor:
        """As `AboveCut`."""
        logits: Tensor = self._graphs.get(len(values), self.above)(values, stages)
        return logits

    def prepare(self, sizes: Iterable[int], sample: Callable[[int], AtCut]) -> None:
        """Capture a graph for each size that has none yet, or for all where the weights lie elsewhere."""
        addresses = addresses_of(self.above.parameters())
        if addresses != self._addresses:
            self._graphs.clear()
            self._addresses = addresses
        # Capturing leaves the gradients' nodes on a stream of its own, for which PyTorch would warn in every run.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        for images in sorted({*sizes} - {*self._graphs}):
            # Warming up changes the statistics of norms that train.
            before = [buffer.clone() for buffer in self.above.buffers()]
            # It replaces the method of the module that it is given.
            inputs = tuple(sample(images))
            with current_on(inputs[0].device):
                graph = torch.cuda.make_graphed_callables(copy(self.above), inputs, allow_unused_input=True)
            for buffer, value in zip(self.above.buffers(), before, strict=True):
                buffer.copy_(value)
            self._graphs[images] = cast(Callable[..., Any], graph)


def _compiled(above: AboveCut) -> StepModel:
    # What the module has not, it takes from the one that it is made of.
    return cast(StepModel, torch.compile(above, dynamic=False))


STEPS: Mapping[Steps, Callable[[AboveCut], StepModel]] = {
    "eager": lambda above: above,
    "cuda_graph": CapturedSteps,
    "compiled": _compiled,
}
"""What runs a step, for each value of the setting `steps`."""
