"""The public functions: `labelling`, `networks`, `training`, search (`tuning`), use (`models`) and `evaluation`.

A model is a run folder, a bundle folder, `hub:OWNER/NAME` or a `Classifier`; a data set is a folder, a table or a
`Dataset`. Every function raises a `ThawError`, in one sentence, for anything that a user can fix.
"""

from thaw.pipeline.evaluation import (
    compare,
    compare_prediction_options,
    cross_validate,
    decide,
    evaluate,
    explain,
    report,
)
from thaw.pipeline.labelling import label
from thaw.pipeline.models import export, load, predict, push, save
from thaw.pipeline.networks import quantise
from thaw.pipeline.training import finetune, inspect, plan, update
from thaw.pipeline.tuning import search

__all__ = [
    "compare",
    "compare_prediction_options",
    "cross_validate",
    "decide",
    "evaluate",
    "explain",
    "export",
    "finetune",
    "inspect",
    "label",
    "load",
    "plan",
    "predict",
    "push",
    "quantise",
    "report",
    "save",
    "search",
    "update",
]
