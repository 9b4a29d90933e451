"""Evaluation and predictions of a finished run on its held-out splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from thaw.evaluation.evaluate import Evaluation
from thaw.evaluation.records import Records
from thaw.selection.estimates import Estimates

SPLIT_NAMES = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class Results:
    """Metrics and predictions of each held-out split: "val" and, where the run has one, "test".

    estimates: what cross-validation before training made expect, where it was done.
    """

    evaluations: Mapping[str, Evaluation]
    records: Mapping[str, Records]
    estimates: Estimates | None = None

    @property
    def split(self) -> str:
        """The split that the report is about: test, or validation without a test set."""
        return "test" if "test" in self.evaluations else "val"

    @property
    def evaluation(self) -> Evaluation:
        """Metrics on that split."""
        return self.evaluations[self.split]

    @property
    def record(self) -> Records:
        """Predictions on that split."""
        return self.records[self.split]
