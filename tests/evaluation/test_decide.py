from __future__ import annotations

import pytest

import thaw
from thaw.errors import RecipeError
from thaw.evaluation.decide import decide
from thaw.evaluation.records import read_records
from thaw.recipe import DecisionSettings
from thaw.run_folder import RunFolder


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (DecisionSettings(coverage=0.5), "decision.coverage"),
        (DecisionSettings(coverage=0.5, in_distribution=0.5), "decision.coverage and decision.in_distribution"),
    ],
)
def test_a_limit_of_a_classifier_that_flags_nothing_is_refused(
    trained: RunFolder, settings: DecisionSettings, named: str
) -> None:
    classifier, val = thaw.load(trained.path), read_records(trained.predictions, "val")
    classifier.review_policy = None
    with pytest.raises(RecipeError, match=f"^{named}: this classifier flags no images for review"):
        decide(classifier, settings, val)
    assert decide(classifier, DecisionSettings(recall={"scratch": 0.9}), val).review_policy is None
