"""Every choice of one distillation, read from a YAML file."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A frozen group of settings that refuses a key it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Images(Section):
    """What teacher and student look at."""

    made_up: int = Field(600, ge=0, description="Made-up pictures beside the photographs.")
    made_up_share: float = Field(0.25, ge=0, le=1, description="Share of the crops that show a made-up picture.")
    held_out: int = Field(20, ge=2, description="One picture in this many is kept for validation alone.")
    smallest_crop: float = Field(0.08, gt=0, le=1, description="Smallest share of a picture's area in a crop.")
    grey: float = Field(0.25, ge=0, le=1, description="Share of the crops without colour.")
    blended: float = Field(0.15, ge=0, le=1, description="Share of the crops that are two crops in one.")
    crops: int = Field(49152, ge=1, description="Crops that the teacher looks at, once.")
    shard: int = Field(2048, ge=1, description="Crops in one file set.")


class Pair(Section):
    """A map of the teacher that a map of the student should predict, both averaged to `grid` x `grid`."""

    teacher: str
    student: str
    grid: int = Field(ge=1)
    weight: float = Field(1.0, ge=0)


class Teacher(Section):
    """The pre-trained network."""

    backbone: str = "mobilenetv2_100"
    size: int = Field(160, ge=32, description="Pixels that the teacher sees.")


class Student(Section):
    """The network that learns from it."""

    backbone: str
    size: int = Field(128, ge=32, description="Pixels that the student sees; the crops are stored at this size.")
    small_size: int = Field(96, ge=32, description="Pixels at the beginning, where detail matters less than speed.")
    small_steps: int = Field(0, ge=0, description="Steps at `small_size`.")


class Training(Section):
    """The optimisation."""

    steps: int = Field(ge=1, description="Steps in all.")
    decay_steps: int = Field(ge=0, description="Steps at the end over which the learning rate falls to zero.")
    warmup_steps: int = Field(200, ge=0, description="Steps over which the learning rate climbs from zero.")
    batch: int = Field(64, ge=2)
    lr: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    muon: bool = Field(True, description="Muon for dense weights, AdamW for the others; else AdamW for all.")
    soft_labels: float = Field(0.5, ge=0, description="Weight of the divergence from the teacher's soft labels.")
    temperature: float = Field(2.0, gt=0)
    bf16: bool = Field(False, description="bfloat16 autocast.")
    report_steps: int = Field(100, ge=1)
    checkpoint_steps: int = Field(200, ge=1)


class Configuration(Section):
    """One distillation."""

    seed: int = 0
    images: Images = Images()
    teacher: Teacher = Teacher()
    student: Student
    pairs: tuple[Pair, ...] = ()
    training: Training

    @classmethod
    def load(cls, file: Path) -> Configuration:
        """Read and check a YAML file."""
        return cls.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
