"""The folder that a run leaves: the only place that knows its file names and what is in each file."""

from thaw.run_folder.evaluation_file import EvaluationFile
from thaw.run_folder.folder import InspectionFolder, RunFolder
from thaw.run_folder.plan_file import ActualCosts, PlanFile
from thaw.run_folder.update_file import ImagesPart, UpdateFile

__all__ = [
    "ActualCosts",
    "EvaluationFile",
    "ImagesPart",
    "InspectionFolder",
    "PlanFile",
    "RunFolder",
    "UpdateFile",
]
