"""The compared jobs: backbones, and what phase 2 thaws in each. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

HEAD_RATE, TOP_RATE = 1e-3, 1e-4
"""Learning rates of the guide: phase 2 uses a tenth of that of phase 1."""

BATCH_SIZE = 32
DROPOUT = 0.2


@dataclass(frozen=True)
class BackboneFacts:
    """The names of one architecture in each library.

    cut: what phase 2 thaws, for Thaw. timm_top: the same as timm modules. keras: class in keras.applications.
    keras_top: the same as prefixes of Keras layer names.
    """

    cut: str
    timm_top: tuple[str, ...]
    keras: str
    keras_top: tuple[str, ...]


_MBCONV_TOP = ("blocks.5", "blocks.6", "conv_head", "bn2")

BACKBONES = {
    "resnet50": BackboneFacts("layer4", ("layer4",), "ResNet50", ("conv5_",)),
    "mobilenetv2_100": BackboneFacts(
        "stages:3", _MBCONV_TOP, "MobileNetV2", ("block_13_", "block_14_", "block_15_", "block_16_", "Conv_1")
    ),
    # Its weights are a `.keras` file, so that only the guide's Keras and Thaw can begin with it.
    "xception": BackboneFacts("block13", (), "Xception", ("block13_", "block14_")),
    "efficientnet_b0": BackboneFacts("stages:3", _MBCONV_TOP, "EfficientNetB0", ("block6", "block7", "top_")),
}
PHASES = {"head": "phase 1 only", "both": "phase 1, then phase 2"}


@dataclass(frozen=True)
class Job:
    """One backbone, with phase 1 only or both phases."""

    backbone: str
    phases: str

    @property
    def name(self) -> str:
        """The name on the command line."""
        return f"{self.backbone}:{self.phases}"

    def epochs(self, per_phase: int) -> tuple[int, int]:
        """Epochs of each phase; 0 for a skipped phase."""
        return per_phase, per_phase if self.phases == "both" else 0


JOBS = {job.name: job for job in (Job(backbone, phases) for backbone in BACKBONES for phases in PHASES)}
