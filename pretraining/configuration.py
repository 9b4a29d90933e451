"""Every choice of one distillation, read from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A frozen group of settings that refuses a key it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageCounts(Section):
    """What teacher and student look at."""

    made_up: int = Field(600, ge=0, description="Made-up pictures beside the photographs.")
    made_up_share: float = Field(0.25, ge=0, le=1, description="Share of the crops that show a made-up picture.")
    held_out: int = Field(20, ge=2, description="One picture in this many is kept for validation alone.")
    smallest_crop: float = Field(0.08, gt=0, le=1, description="Smallest share of a picture's area in a crop.")
    grey: float = Field(0.25, ge=0, le=1, description="Share of the crops without colour.")
    blended: float = Field(0.15, ge=0, le=1, description="Share of the crops that are two crops in one.")
    size: int = Field(128, ge=32, description="Pixels of a side of a crop.")
    crops: int = Field(49152, ge=1, description="Crops, each drawn once.")
    shard: int = Field(2048, ge=1, description="Crops in one file.")


class Part(Section):
    """Some blocks of the student and how they learn to do what the same blocks of the teacher do."""

    start: str = Field(description="The lowest block that learns; pixels for all.")
    stop: str = Field("", description="The lowest block above the part; empty where there is none.")
    inputs: Literal["teacher", "student"] = Field(
        "teacher", description="Whose blocks below the part give what the student gets at its lowest block."
    )
    chained: bool = Field(
        False, description="Each block gets what the block below it gave, not what the teacher's block gave."
    )
    features: float = Field(1.0, ge=0, description="Weight of the last block's error; every other block weighs 1.")
    window: int = Field(0, ge=0, description="Side of a random window of the crops, for a part on pixels; 0 for all.")
    steps: int = Field(ge=1, description="Steps in all.")
    warmup_steps: int = Field(100, ge=0, description="Steps over which the learning rate climbs from zero.")
    decay_steps: int = Field(ge=0, description="Steps at the end over which it falls to zero.")
    batch: int = Field(64, ge=2)
    lr: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    muon: bool = Field(True, description="Muon for dense weights, AdamW for the others; else AdamW for all.")


class Configuration(Section):
    """One distillation: the parts are trained in their order, each beginning with what those before it learned."""

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
