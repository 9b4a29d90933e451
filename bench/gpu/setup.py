"""What every job of the check works with: sizes, the device, and a folder for everything that is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from thaw.backbones import starter
from thaw.features.engines import ENGINES
from thaw.recipe import Engine, Steps


@dataclass(frozen=True)
class Sizes:
    """How much is measured, and with which networks.

    Attributes:
        network: A ResNet that timm and torchvision both have, except with `--tiny`.
        peer: The network of torchvision that is compared with it.
        pretrained: A network with weights that need no download, and where they come from.
        two_phases: Networks of which `thaw train` trains the head and then the top, with their weights.
        networks: Networks that it trains as a whole.
        side: Of the network's input, in pixels.
        images: Images of the large data set, a multiple of 256.
        few: Images of the small data set.
        extracted: Images whose pooled features are extracted, a multiple of 256.
        maps: Images whose maps below `layer4` are extracted and trained on, a multiple of 256.
        batches: Batch sizes: the default of Thaw first, then one that fills the GPU.
        epochs: Epochs of `thaw train`.
        seconds: How long one speed is measured.
        backend: Of `torch.compile`, for what is compiled without Thaw.
        modes: To run training steps; those that are compiled with the largest batch only.
        steps: Steps of training whose losses are compared.
        trainings: Short runs with various settings.
        exports: Whether classifiers are exported.
        engines: Engines that run the frozen part.
    """

    network: str = "resnet50"
    peer: str = "resnet50"
    pretrained: tuple[str, str] = (starter.NAME, "published")
    two_phases: tuple[tuple[str, str], ...] = ((starter.NAME, "published"), ("resnet50", "random"))
    networks: tuple[str, ...] = ("efficientnet_b0", "mobilenetv2_100")
    side: int = 224
    images: int = 8_192
    few: int = 2_000
    extracted: int = 8_192
    maps: int = 4_096
    batches: tuple[int, int] = (32, 256)
    epochs: int = 3
    seconds: float = 2.0
    backend: str = "inductor"
    modes: tuple[Steps, ...] = get_args(Steps)
    steps: int = 20
    trainings: tuple[str, ...] = ("binary", "multilabel", "scratch")
    exports: bool = True
    engines: tuple[Engine, ...] = tuple(name for name, spec in ENGINES.items() if spec.only_on != "cpu")


TINY = Sizes(
    network="test_resnet",
    peer="resnet18",
    pretrained=("mobilenetv3_small_050", "random"),
    two_phases=(("mobilenetv3_small_050", "random"),),
    networks=(),
    side=32,
    images=64,
    few=60,
    extracted=32,
    maps=32,
    batches=(8, 16),
    epochs=1,
    seconds=0.02,
    backend="eager",
    modes=("eager",),
    steps=3,
    trainings=("multilabel",),
    exports=False,
    engines=("pytorch-fp32", "pytorch-bf16"),
)
"""Everything within seconds on a CPU."""


@dataclass(frozen=True)
class Setup:
    """What a job works with."""

    sizes: Sizes
    device: torch.device
    folder: Path

    @property
    def images(self) -> Path:
        """The large data set, one folder per class."""
        return self.folder / "images"

    @property
    def few(self) -> Path:
        """The small data set, one folder per class."""
        return self.folder / "few"

    def new_folder(self, name: str) -> Path:
        """A folder for what one job writes."""
        place = self.folder / name
        place.mkdir()
        return place
