"""The engines that can execute the frozen part, by name, and whether each can run here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

from thaw.backbones.contract import Backbone
from thaw.features.torch_runner import Precision, TorchRunner
from thaw.recipe import Engine

REFERENCE: Engine = "pytorch-fp32"
"""The engine that every other one is compared with."""


class Runner(Protocol):
    """Executes the frozen blocks up to `positions`, ascending."""

    positions: tuple[int, ...]

    def run(self, pixels: Tensor) -> list[Tensor]:
        """Outputs at `positions` for pixels (N, S, S, 3) uint8 0..255: float32, without gradients."""
        ...


@dataclass(frozen=True)
class FrozenPart:
    """A backbone with the weights that it holds now, and the engine that runs it; runners are made when needed."""

    backbone: Backbone
    device: torch.device
    engine: Engine
    _made: dict[tuple[int, ...], Runner] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The engine with its version: what its output hangs on besides the weights."""
        package = "openvino" if self.engine.startswith("openvino") else "torch"
        return f"{self.engine}, {package} {version(package)} on {self.device.type}"

    def runner(self, positions: Sequence[int]) -> Runner:
        """The runner for some positions, ascending."""
        wanted = tuple(positions)
        if wanted not in self._made:
            self._made[wanted] = make_runner(self.engine, self.backbone, self.device, wanted)
        return self._made[wanted]


def make_runner(engine: Engine, backbone: Backbone, device: torch.device, positions: Sequence[int]) -> Runner:
    """The runner of an engine, with the weights that the backbone holds now.

    The pixels themselves (position 0) are only normalised, which PyTorch does. Raises whatever the engine raises
    where it cannot take this network.
    """
    kind, _, number_format = engine.partition("-")
    precision: Precision = "bf16" if number_format == "bf16" else "fp32"
    if kind == "openvino" and positions[0] > 0:
        # OpenVINO takes a while to import, which a run that reads its features from a store need not wait for.
        from thaw.features.openvino_runner import OpenVinoRunner

        return OpenVinoRunner(backbone, positions, precision)
    return TorchRunner(backbone, device, precision, positions, compiled=kind == "compiled" and positions[0] > 0)


def missing(engine: Engine, device: torch.device) -> str:
    """Why an engine cannot run on this machine; empty where it can."""
    if engine.startswith("openvino"):
        if device.type != "cpu":
            return "runs on the CPU only"
        if find_spec("openvino") is None:
            return "is not installed (pip install openvino)"
    return ""
