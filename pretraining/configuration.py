"""The settings of a distillation, read from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A frozen group of settings that rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageCounts(Section):
    """The training images and crops."""

    synthetic: int = Field(600, ge=0, description="Synthetic images in addition to the photographs.")
    synthetic_fraction: float = Field(
        0.25, ge=0, le=1, description="Fraction of the crops that are from synthetic images."
    )
    held_out: int = Field(20, ge=2, description="One in this many images is used only for validation.")
    smallest_crop: float = Field(0.08, gt=0, le=1, description="Smallest fraction of an image's area in a crop.")
    grey: float = Field(0.25, ge=0, le=1, description="Fraction of the crops that are converted to grey.")
    blended: float = Field(0.15, ge=0, le=1, description="Fraction of the crops that blend two crops.")
    size: int = Field(128, ge=32, description="Side of a crop in pixels.")
    crops: int = Field(49152, ge=1, description="Number of crops, each drawn once.")
    shard: int = Field(2048, ge=1, description="Crops per file.")


class Part(Section):
    """Some blocks of the student, and how they learn to imitate the same blocks of the teacher."""

    start: str = Field(description="The lowest block that is trained; pixels for all.")
    stop: str = Field("", description="The lowest block above the part; empty if there is none.")
    inputs: Literal["teacher", "student"] = Field(
        "teacher", description="Whose blocks below the part compute the input of its lowest block."
    )
    chained: bool = Field(
        False, description="Feed each block with the output of the student's previous block instead of the teacher's."
    )
    features: float = Field(1.0, ge=0, description="Weight of the last block's error; that of the other blocks is 1.")
    window: int = Field(
        0,
        ge=0,
        description="Side of a random window of the crops, for a part that starts at the pixels; 0 for whole crops.",
    )
    steps: int = Field(ge=1, description="Total number of steps.")
    warmup_steps: int = Field(100, ge=0, description="Steps over which the learning rate rises from zero.")
    decay_steps: int = Field(ge=0, description="Final steps over which the learning rate falls to zero.")
    batch: int = Field(64, ge=2)
    lr: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    muon: bool = Field(
        True, description="Use Muon for dense weights and AdamW for the others; otherwise AdamW for all."
    )


class Configuration(Section):
    """One distillation: the parts are trained in order, each starting from the weights of the previous ones."""

    seed: int = 0
    teacher: str = "mobilenetv2_100"
    images: ImageCounts = ImageCounts()
    parts: dict[str, Part]
    report_steps: int = Field(100, ge=1)
    checkpoint_steps: int = Field(500, ge=1)

    @classmethod
    def load(cls, file: Path) -> Configuration:
        """Read and check a YAML file."""
        return cls.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
