"""The blocks of a network, and the cut between them that a recipe means."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from thaw.errors import BackboneError


@dataclass(frozen=True)
class Block:
    """One link of the chain: the modules that run one after the other, by their names in the network.

    shape: of the output for one small image, (C, H, W) or (C,); empty where it is not known.
    """

    stage: str
    modules: tuple[str, ...]
    shape: tuple[int, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """The first module's name, or the stage's for the network itself, which has no name."""
        return self.modules[0] or self.stage


@dataclass(frozen=True)
class Cut:
    """Blocks below `position` are frozen; `trainable` names the parameters above it that train."""

    name: str
    position: int
    trainable: frozenset[str]


@dataclass(frozen=True)
class Cuts:
    """Where a network can be cut.

    architecture: its name, for messages. layers: the modules of each layer that `layers:N` counts, where the library
    counts differently.
    """

    network: nn.Module
    blocks: tuple[Block, ...]
    architecture: str
    layers: Sequence[Sequence[str]] | None = None

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Every stage, from the pixels to the head."""
        return tuple(dict.fromkeys(block.stage for block in self.blocks))

    def find(self, at: str) -> Cut:
        """As `Backbone.cut`."""
        if at == "head":
            return Cut("head", len(self.blocks), frozenset())
        if at == "pixels":
            return self._cut_at(at, 0)
        if len(self.blocks) == 1:
            raise BackboneError(f"cut {at!r}: {self.architecture} runs as one piece, only head and pixels are cuts")
        kind, _, number = at.partition(":")
        if kind in ("stages", "layers") and number.isdecimal() and int(number) > 0:
            return self._top_stages(int(number)) if kind == "stages" else self._last_layers(int(number))
        for position, block in enumerate(self.blocks):
            if at in (block.name, block.stage):
                return self._cut_at(at, position)
        raise BackboneError(self._no_such_cut(at))

    def raised(self, cut: Cut, stages: int) -> Cut:
        """As `Backbone.raised`."""
        if cut.position == len(self.blocks):
            return cut
        trained = [stage for stage in self.stage_names if self._has_parameters(stage)]
        above = list(dict.fromkeys(block.stage for block in self.blocks[cut.position :] if block.stage in trained))
        stage = above[min(stages, len(above) - 1)]
        if not stages or stage == above[0]:
            return cut
        higher = self._cut_at(stage, next(at for at, block in enumerate(self.blocks) if block.stage == stage))
        return Cut(stage, higher.position, higher.trainable & cut.trainable)

    def block_of(self, name: str) -> Block:
        """The block of a module or parameter."""
        return next(block for block in self.blocks if lies_in(name, set(block.modules)) or name in block.modules)

    def _cut_at(self, name: str, position: int) -> Cut:
        modules = {module for block in self.blocks[position:] for module in block.modules}
        names = (name for name, _ in self.network.named_parameters())
        return Cut(name, position, frozenset(name for name in names if lies_in(name, modules)))

    def _top_stages(self, count: int) -> Cut:
        state = [stage for stage in self.stage_names if self._has_parameters(stage)]
        if count > len(state):
            raise BackboneError(
                f"cut stages:{count}: {self.architecture} has {len(state)} stages; `pixels` thaws them all"
            )
        stage = state[-count]
        position = next(index for index, block in enumerate(self.blocks) if block.stage == stage)
        return self._cut_at(stage, position)

    def _last_layers(self, count: int) -> Cut:
        layers = self.layers if self.layers is not None else self._layers_in_order()
        if count > len(layers):
            raise BackboneError(
                f"cut layers:{count}: {self.architecture} has {len(layers)} layers; `pixels` thaws them all"
            )
        wanted = {name for names in layers[-count:] for name in names}
        names = (name for name, _ in self.network.named_parameters())
        trainable = frozenset(name for name in names if lies_in(name, wanted))
        positions = (self.blocks.index(self.block_of(name)) for name in wanted)
        return Cut(f"layers:{count}", min(positions, default=len(self.blocks)), trainable)

    def _layers_in_order(self) -> list[tuple[str]]:
        return [
            (name,)
            for block in self.blocks
            for root in block.modules
            for name, module in self.network.get_submodule(root).named_modules(prefix=root)
            if _is_layer(module)
        ]

    def _has_parameters(self, stage: str) -> bool:
        modules = [name for block in self.blocks if block.stage == stage for name in block.modules]
        return any(any(True for _ in self.network.get_submodule(name).parameters()) for name in modules)

    def _no_such_cut(self, at: str) -> str:
        known = ["head", "pixels", *self.stage_names]
        near = difflib.get_close_matches(at, [*known, *(block.name for block in self.blocks)], n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return (
            f"cut {at!r}: {self.architecture} has no such stage; {hint}"
            f"known are {', '.join(known)}, stages:N and layers:N"
        )


def lies_in(tensor: str, modules: set[str]) -> bool:
    """Whether a tensor's name lies within one of `modules`; the empty name is the whole network."""
    parts = tensor.split(".")
    return any(".".join(parts[:length]) in modules for length in range(len(parts)))


def _is_layer(module: nn.Module) -> bool:
    """BatchNorm that carries its activation inside has a child, and is a layer nevertheless."""
    owns_parameters = any(True for _ in module.parameters(recurse=False))
    return owns_parameters or not (any(module.children()) or isinstance(module, nn.Identity))
