"""Every setting of a run, declared once: the field is the YAML key, the command-line option, the check and the docs.

`sections` has the groups of settings and the phases, and `recipe_settings` all of them; `recipe` reads, changes and
compares recipes; `resolved` is what a plan makes of one, and `upgrade` reads recipes of earlier releases.
"""

from thaw.recipe.recipe import Recipe
from thaw.recipe.recipe_settings import (
    DEFAULT_BACKBONE,
    FINE_TUNE_PHASE,
    HEAD_PHASE,
    ClassWeights,
    Engine,
    KeepPhase,
    LoggerName,
    MemoryFormat,
    Monitor,
    Steps,
    Strategy,
    Task,
)
from thaw.recipe.resolved import ResolvedPhase, ResolvedRecipe
from thaw.recipe.sections import (
    USUAL_BATCH,
    AugmentSettings,
    DecisionSettings,
    DecodeSettings,
    FolderSettings,
    HeadSettings,
    MeasureSettings,
    Phase,
    PreprocessingSettings,
    Preset,
    SplitSettings,
)

__all__ = [
    "DEFAULT_BACKBONE",
    "FINE_TUNE_PHASE",
    "HEAD_PHASE",
    "USUAL_BATCH",
    "AugmentSettings",
    "ClassWeights",
    "DecisionSettings",
    "DecodeSettings",
    "Engine",
    "FolderSettings",
    "HeadSettings",
    "KeepPhase",
    "LoggerName",
    "MeasureSettings",
    "MemoryFormat",
    "Monitor",
    "Phase",
    "PreprocessingSettings",
    "Preset",
    "Recipe",
    "ResolvedPhase",
    "ResolvedRecipe",
    "SplitSettings",
    "Steps",
    "Strategy",
    "Task",
]
