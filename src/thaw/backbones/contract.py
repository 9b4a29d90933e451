"""One contract for every pre-trained network: an ordered chain of blocks that can be cut anywhere.

Knows no library. A block is the smallest piece that is never divided in forward (`layer4.1`, `blocks.5.0`,
`conv_stem`); a stage is a named group of neighbouring blocks (`layer4`, `blocks.5`). Parameters keep the
names that the wrapped network gives them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thaw.backbones.batchnorm import BatchNormLayer, batchnorm_layers, is_frozen
from thaw.backbones.cuts import Block, Cut, Cuts, lies_in
from thaw.backbones.facts import Facts, Features, Pooling, TrainedHead
from thaw.backbones.stages import STATISTICS, AtCut, statistics_of, taps_of
from thaw.errors import BackboneError
from thaw.recipe import MemoryFormat

_FORMATS: Mapping[MemoryFormat, torch.memory_format] = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}


class Backbone(nn.Module):
    """A pre-trained network as a chain: normalised (N, 3, S, S) float in, pooled features (N, width) out.

    Starts out in eval mode, frozen to the head. `train()` never switches on what is frozen.
    """

    def __init__(
        self,
        network: nn.Module,
        blocks: tuple[Block, ...],
        facts: Facts,
        pooling: Pooling = "avg",
        layers: Sequence[Sequence[str]] | None = None,
        trained_head: TrainedHead | None = None,
    ) -> None:
        """Take over a network.

        Args:
            network: The network, without a classifier.
            blocks: Its chain.
            facts: What travels with its weights.
            pooling: How it pools its last maps.
            layers: The modules of each layer that `layers:N` counts, where the library counts differently.
            trained_head: The head that came with it, if any.
        """
        super().__init__()
        self.network = network
        self.blocks = blocks
        self.facts = facts
        self.pooling = pooling
        self.features: Features = "last"
        self._taps = taps_of(blocks)
        self._cuts = Cuts(network, blocks, facts.architecture, layers)
        self.is_depthwise = any(map(_is_depthwise, network.modules()))
        self.memory_format: MemoryFormat = "contiguous" if self.is_depthwise else "channels_last"
        self.trained_head = trained_head
        self._runs = [[network.get_submodule(name) for name in block.modules] for block in blocks]
        self._position, self._batchnorm = len(blocks), "frozen"
        # The layout of the inputs, so that no convolution rearranges its weights in every step.
        self.to(memory_format=torch.channels_last)
        self.eval()
        self.thaw(self.cut("head"), "frozen")

    @property
    def block_names(self) -> tuple[str, ...]:
        """Every block, from the pixels to the head."""
        return tuple(block.name for block in self.blocks)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Every stage, from the pixels to the head."""
        return self._cuts.stage_names

    @property
    def head_position(self) -> int:
        """The position of the cut just below the head: that of the pooled features."""
        return len(self.blocks)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def is_divisible(self) -> bool:
        """Whether there is a cut between the pixels and the head: false for a network that is no chain."""
        return len(self.blocks) > 1

    @property
    def has_stages(self) -> bool:
        """Whether there are stages below the last one that the head can take."""
        return bool(self._taps)

    @property
    def feature_groups(self) -> tuple[int, ...]:
        """How many of the features that the head takes belong to each stage, from the pixels up."""
        return (*(width for _, width in self._stage_ends()), self.facts.width)

    @property
    def feature_width(self) -> int:
        """How many features the head takes."""
        return sum(self.feature_groups)

    def stage_width(self, position: int) -> int:
        """How many statistics of stages lie at a position: those of the stages that end there or below."""
        return sum(width for end, width in self._stage_ends() if end <= position)

    def use_features(self, features: Features) -> None:
        """Let the head take the last stage only, or all of them; raises `BackboneError` where there are no others."""
        if features == "all" and not self.has_stages:
            raise BackboneError(
                f"head.features all: {self.facts.architecture} has no stages below the last one whose maps could be "
                "taken; use last"
            )
        self.features = features

    @property
    def widest_features(self) -> Features:
        """All stages, or the last one of a network that has no others."""
        return "all" if self.has_stages else "last"

    @contextmanager
    def taking(self, features: Features) -> Iterator[None]:
        """Within the block the head takes these features, and afterwards what it took before."""
        before = self.features
        self.use_features(features)
        try:
            yield
        finally:
            self.features = before

    def use_memory_format(self, memory_format: MemoryFormat) -> None:
        """Let maps and weights have another layout on CUDA devices; elsewhere it is channels_last.

        A new network has the one that needs no preparation. Of depthwise convolutions in channels_last cuDNN prepares
        each for every batch size and thread anew, which takes 50 to 250 ms: MobileNetV2 4 s in inference and 6 s in
        training, EfficientNet-B0 7 to 12 s, against 0.1 to 0.6 s (H200, cuDNN 9.19). After that it is twice as fast:
        MobileNetV2 trains 5,871 images per second instead of 2,840.
        """
        self.memory_format = memory_format
        self._lay_out()

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features (N, width) of normalised images (N, 3, S, S)."""
        return self.run(images, 0, self.head_position)

    def run(self, value: Tensor, start: int, stop: int) -> Tensor:
        """Run blocks `start` up to, not including, `stop` on what lies at `start`."""
        if value.is_cuda and value.ndim == 4:
            value = value.to(memory_format=_FORMATS[self.memory_format])
        for modules in self._runs[start:stop]:
            for module in modules:
                value = module(value)
        return value

    def advance(self, at: AtCut, start: int, stop: int) -> AtCut:
        """Run blocks `start` up to, not including, `stop` on what lies at `start`, and add the stages ended."""
        values, stages = at.values, [at.stages] if at.stages.shape[1] else []
        for end, _ in self._stage_ends():
            if start < end <= stop:
                values, start = self.run(values, start, end), end
                stages.append(statistics_of(values))
        return AtCut(self.run(values, start, stop), torch.cat(stages, dim=1) if stages else at.stages)

    def cut(self, at: str) -> Cut:
        """The cut that a recipe means.

        `head`: nothing below the head trains. `pixels`: everything trains. `stages:N`: the top N stages that
        have parameters. `layers:N`: the last N layers, as `layers[-N:]` in Keras, a layer being a module that
        has parameters of its own or no children; the cut lies below the block that holds the first of them,
        and what is older inside that block stays frozen. Else the name of a stage or block, which is the
        lowest that trains. Raises `BackboneError`.
        """
        return self._cuts.find(at)

    def raised(self, cut: Cut, stages: int) -> Cut:
        """The cut that many stages above another one, below which more is frozen; at most that of the top stage."""
        return self._cuts.raised(cut, stages)

    def thaw(self, cut: Cut, batchnorm: Literal["frozen", "train"]) -> None:
        """Let exactly `cut.trainable` learn; BatchNorm above the cut keeps its statistics or renews them."""
        self._position, self._batchnorm = cut.position, batchnorm
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name in cut.trainable)
        self.train(self.training)

    def train(self, mode: bool = True) -> Backbone:
        """Set the mode of what is thawed; what is frozen stays in eval mode."""
        super().train(mode)
        for modules in self._runs[: self._position]:
            for module in modules:
                module.eval()
        for module in self.network.modules():
            if isinstance(module, _BatchNorm) and (self._batchnorm == "frozen" or is_frozen(module)):
                module.eval()
        return self

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter, int]]:
        """(name, parameter, depth) of everything that trains; depth: stages between it and the head, 0 in the top."""
        stages = self.stage_names
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                stage = self._cuts.block_of(name.removeprefix("network.")).stage
                yield name, parameter, len(stages) - 1 - stages.index(stage)

    def named_weights(self) -> dict[str, Tensor]:
        """Every parameter and buffer, by the name that the wrapped library gives it."""
        return dict(self.network.state_dict())

    def load_named_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Put back what `named_weights` gave; raises `RuntimeError` where tensors are missing or do not fit."""
        self.network.load_state_dict(weights)

    def batchnorm_layers(self) -> tuple[BatchNormLayer, ...]:
        """Every BatchNorm that keeps statistics, from the pixels up."""
        return batchnorm_layers(self.network, self.blocks)

    def modules_in_order(self) -> Iterator[tuple[nn.Module, int]]:
        """Modules in the order in which they run, each with the position behind its block.

        Of a network that is no chain its direct children, all at the head.
        """
        if not self.is_divisible:
            yield from ((child, self.head_position) for child in self.network.children())
            return
        for position, block in enumerate(self.blocks, start=1):
            yield from ((self.network.get_submodule(name), position) for name in block.modules)

    def stage_modules(self) -> list[tuple[nn.Module, int]]:
        """The module whose output is the map of a lower stage that the head takes, and the position behind it."""
        return [(self._runs[end - 1][-1], end) for end, _ in self._stage_ends()]

    def state_from(self, position: int) -> dict[str, Tensor]:
        """Parameters and buffers of the blocks from `position` up, by their names in `state_dict`."""
        kept = {name for block in self.blocks[position:] for name in block.modules}
        return {key: value for key, value in self.state_dict().items() if lies_in(key.removeprefix("network."), kept)}

    def digest(self, position: int, features: Features | None = None) -> str:
        """SHA-256 of the architecture and of every weight below `position`, and of which stages the head takes.

        features: as `use_features` takes them; by default those that it was given.
        """
        above = self.state_from(position)
        described = (self.facts.architecture, self.facts.model_args, self.pooling)
        # What a head on the last stage alone takes does not depend on the statistics.
        stages = (tuple(STATISTICS), self._taps) if (features or self.features) == "all" else ()
        digest = hashlib.sha256(repr((*described, *stages)).encode())
        for key, value in self.state_dict().items():
            if key not in above:
                digest.update(key.encode())
                digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Where PyTorch moves the weights to a CUDA device, they take the layout of the maps there."""
        super()._apply(fn, recurse)
        self._lay_out()
        return self

    def _lay_out(self) -> None:
        # `contiguous` would keep the strides of a depthwise or 1 x 1 kernel, by which cuDNN chooses.
        for parameter in self.network.parameters():
            if parameter.is_cuda and parameter.ndim == 4:
                parameter.data = parameter.data.to(memory_format=_FORMATS[self.memory_format])

    def _stage_ends(self) -> list[tuple[int, int]]:
        """(position behind its last block, number of statistics) of each lower stage that the head takes."""
        taken = self._taps.items() if self.features == "all" else ()
        return [(end, len(STATISTICS) * channels) for end, channels in taken]


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
