"""A recipe after planning: no value is "auto"."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from thaw.recipe.recipe import Recipe
from thaw.recipe.recipe_settings import ClassWeights, Engine, KeepPhase, MemoryFormat, Monitor, Steps, Task
from thaw.recipe.sections import USUAL_BATCH, HeadSettings, Phase


class ResolvedHead(HeadSettings):
    """A head whose features are decided; those of earlier releases took the last stage."""

    features: Literal["last", "all"] = "last"


class ResolvedPhase(Phase):
    """A phase whose solver, inputs and batch size are decided."""

    solver: Literal["optimizer", "lbfgs"] = "optimizer"
    inputs: Literal["cached", "fresh"] = "cached"
    batch_size: int = USUAL_BATCH


class ResolvedRecipe(Recipe):
    """A recipe in which every choice is made; what a run folder keeps, and what training takes."""

    task: Task
    device: str
    engine: Engine
    precision: Literal["fp32", "bf16"]
    steps: Steps = "eager"
    memory_format: MemoryFormat = "channels_last"
    views: int
    cache_dtype: Literal["float16", "uint8"]
    cache_gb: float
    class_weights: ClassWeights
    monitor: Monitor
    keep_phase: KeepPhase = "any_gain"
    strategy: Literal["manual"] = "manual"
    head: ResolvedHead = Field(ResolvedHead(), description="The classification head.")
    phases: tuple[ResolvedPhase, ...]

    @field_validator("monitor")
    @classmethod
    def _monitor_is_decided(cls, name: str) -> str:
        if name == "auto":
            raise ValueError("must be the name of a metric")
        return name
