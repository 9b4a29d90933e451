"""The engines that run the frozen part: one table of them, and the runners they make.

An engine is added by an entry in `ENGINES` and its name in `recipe.Engine`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from typing import Literal, Protocol

import torch
from torch import Tensor

from thaw.backbones.contract import Backbone
from thaw.backbones.facts import Features
from thaw.backbones.stages import AtCut
from thaw.device import ran_out_of_memory
from thaw.errors import RecipeError, ThawError, first_line
from thaw.features.torch_runner import Precision, TorchRunner
from thaw.formats import count
from thaw.recipe import Engine

REFERENCE: Engine = "pytorch-fp32"
"""The engine that every other one is compared with."""

INT8: Engine = "openvino-fp32"
"""The engine of networks in int8: it computes convolutions in integers, and what lies between them in fp32, with the
same bits for any number of threads and on x86 CPUs with AVX2, with or without VNNI (tests/features/test_int8.py; not on
older ones, nor where there is more than BatchNorm, activations and sums in between, as in ConvNeXt). PyTorch's floats
agree with it in all but a few values of every layer, which differ by one step; the layers above multiply that."""

Kind = Literal["pytorch", "openvino", "compiled", "cuda-graph"]


class Runner(Protocol):
    """Runs the frozen blocks up to `positions`, ascending."""

    positions: tuple[int, ...]

    def run(self, pixels: Tensor) -> list[AtCut]:
        """What lies at each position, float32 without gradients, for pixels (N, S, S, 3) uint8 0..255."""
        ...


@dataclass(frozen=True)
class EngineSpec:
    """One engine.

    Attributes:
        kind: Engines of one kind differ in precision only.
        precision: Number format of the computation; features are float32.
        package: The package whose version can change the features.
        make: Makes a runner from a backbone, a device, positions, the precision and the image size.
        only_on: The one type of device that it runs on; empty for all.
        probe_above: Seconds that a job must take with the best engine so far for a probe to pay; `None` for no probe.
        unless: Not probed where an engine of this kind agrees with the reference.
    """

    kind: Kind
    precision: Precision
    package: str
    make: Callable[[Backbone, torch.device, Sequence[int], Precision, int], Runner]
    only_on: str = ""
    probe_above: float | None = None
    unless: Kind | None = None


def _pytorch(
    backbone: Backbone, device: torch.device, positions: Sequence[int], precision: Precision, image_size: int
) -> Runner:
    return TorchRunner(backbone, device, precision, positions)


def _compiled(
    backbone: Backbone, device: torch.device, positions: Sequence[int], precision: Precision, image_size: int
) -> Runner:
    return TorchRunner(backbone, device, precision, positions, "compiled")


def _cuda_graph(
    backbone: Backbone, device: torch.device, positions: Sequence[int], precision: Precision, image_size: int
) -> Runner:
    return TorchRunner(backbone, device, precision, positions, "cuda_graph")


def _openvino(
    backbone: Backbone, device: torch.device, positions: Sequence[int], precision: Precision, image_size: int
) -> Runner:
    # OpenVINO takes a while to import, which a run with all features in the cache need not wait for.
    from thaw.features.openvino_runner import OpenVinoRunner

    return OpenVinoRunner(backbone, positions, precision, image_size)


_CAPTURE_PAYS, _PROBE_PAYS, _COMPILE_PAYS = 0.5, 4.0, 240.0
"""Capturing a CUDA graph takes 0.2 s, probing OpenVINO 1 to 3 s, compiling 20 to 60 s."""

ENGINES: Mapping[Engine, EngineSpec] = {
    REFERENCE: EngineSpec("pytorch", "fp32", "torch", _pytorch, probe_above=0.0),
    "cuda-graph-fp32": EngineSpec("cuda-graph", "fp32", "torch", _cuda_graph, "cuda", _CAPTURE_PAYS),
    "cuda-graph-bf16": EngineSpec("cuda-graph", "bf16", "torch", _cuda_graph, "cuda", _CAPTURE_PAYS),
    "openvino-fp32": EngineSpec("openvino", "fp32", "openvino", _openvino, only_on="cpu", probe_above=_PROBE_PAYS),
    "openvino-bf16": EngineSpec("openvino", "bf16", "openvino", _openvino, only_on="cpu", probe_above=_PROBE_PAYS),
    "pytorch-bf16": EngineSpec("pytorch", "bf16", "torch", _pytorch, probe_above=_PROBE_PAYS, unless="openvino"),
    "compiled-fp32": EngineSpec("compiled", "fp32", "torch", _compiled),
    "compiled-bf16": EngineSpec("compiled", "bf16", "torch", _compiled, probe_above=_COMPILE_PAYS, unless="openvino"),
}
"""Every engine, in the order of probing."""


@dataclass(frozen=True)
class FrozenPart:
    """A backbone with its current weights and the engine that runs it; runners are made when they are first needed.

    image_size: side of the images in pixels, by default that of the backbone. maps: what it is run on in place of
    pixels, if that is features at a lower cut.
    """

    backbone: Backbone
    device: torch.device
    engine: Engine
    image_size: int | None = None
    maps: str = ""
    _runners: dict[tuple[int, ...], Runner] = field(default_factory=dict)
    _digests: dict[tuple[int, Features], str] = field(default_factory=dict)

    @property
    def runs_on(self) -> torch.device:
        """The device that computes it: the CPU for a network in int8, wherever its features go."""
        return torch.device("cpu") if self.backbone.facts.int8 else self.device

    @property
    def all_serve_last(self) -> bool:
        """Whether features of all stages serve a head on the last stage alone.

        In int8 a few images are rounded differently where the maps of all stages are asked for, and features are to be
        those of the bundle to the bit.
        """
        return not self.backbone.facts.int8

    @property
    def label(self) -> str:
        """The engine, its version and the device: everything but the weights that can change the features."""
        package = ENGINES[self.engine].package
        # PyTorch on the CPU rounds differently with another number of threads (MobileNetV2 in fp32), OpenVINO does not.
        depends_on_threads = self.runs_on.type == "cpu" and package == "torch"
        threads = f" with {count(torch.get_num_threads(), 'thread')}" if depends_on_threads else ""
        label = f"{self.engine}, {package} {version(package)} on {self.runs_on.type}{threads}"
        return f"{label} from {self.maps}" if self.maps else label

    def digest(self, position: int, features: Features | None = None) -> str:
        """As `Backbone.digest`, which reads all weights; they are those of the runners and do not change."""
        key = (position, features or self.backbone.features)
        if key not in self._digests:
            self._digests[key] = self.backbone.digest(*key)
        return self._digests[key]

    def runner(self, positions: Sequence[int]) -> Runner:
        """The runner for some positions, ascending."""
        key = tuple(positions)
        if key not in self._runners:
            self._runners[key] = make_runner(self.engine, self.backbone, self.device, key, self.image_size)
        return self._runners[key]


def make_runner(
    engine: Engine, backbone: Backbone, device: torch.device, positions: Sequence[int], image_size: int | None = None
) -> Runner:
    """A runner of an engine with the current weights of a backbone.

    Position 0 is the normalised pixels, which PyTorch computes for every engine. Raises whatever the engine raises for
    a network that it does not support.
    """
    spec = ENGINES[engine]
    make = spec.make if positions[0] > 0 else _pytorch
    return make(backbone, device, positions, spec.precision, image_size or backbone.facts.pixels.size)


def missing(engine: Engine, device: torch.device) -> str:
    """Why an engine cannot run on this machine; empty where it can."""
    spec = ENGINES[engine]
    if spec.only_on and device.type != spec.only_on:
        return f"runs on {_DEVICES[spec.only_on]} only"
    if find_spec(spec.package) is None:
        return f"is not installed (pip install {spec.package})"
    return ""


def unusable(engine: Engine, backbone: Backbone, device: torch.device) -> str:
    """Why an engine cannot run a network on this machine; empty where it can.

    A network in int8 runs on the CPU, wherever the head is.
    """
    if not backbone.facts.int8:
        return missing(engine, device)
    return missing(engine, torch.device("cpu")) if engine == INT8 else f"cannot run weights in int8; {INT8} can"


@contextmanager
def required(setting: str, advice: str = "use auto") -> Iterator[None]:
    """Within the block, whatever an engine raises that a setting requires becomes a `RecipeError` with advice.

    Errors of Thaw's own and those about memory are left as they are.

    Args:
        setting: With its value, such as "engine: compiled-fp32".
        advice: What to do.
    """
    try:
        yield
    # Compilers and engines fail in ways of their own on a network or machine that they do not support.
    except Exception as error:
        if isinstance(error, ThawError) or ran_out_of_memory(error):
            raise
        raise RecipeError(f"{setting} {failure(error)}; {advice}") from error


def failure(error: Exception) -> str:
    """How an engine failed, in a phrase; compilers explain themselves over many lines."""
    return f"fails here ({type(error).__name__}: {first_line(error)[:_SHOWN]})"


def reference_of(backbone: Backbone) -> Engine:
    """The engine that defines the features of a network: fp32 PyTorch, or the only one that runs it in int8."""
    return INT8 if backbone.facts.int8 else REFERENCE


_SHOWN = 80
_DEVICES = {"cpu": "the CPU", "cuda": "CUDA devices"}


def in_fp32(engine: Engine) -> Engine:
    """The engine of the same kind that computes in fp32."""
    kind = ENGINES[engine].kind
    return next(name for name, spec in ENGINES.items() if (spec.kind, spec.precision) == (kind, "fp32"))
