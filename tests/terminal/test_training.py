from collections.abc import Sequence
from typing import get_args

import pytest

from thaw.progress import NullReporter
from thaw.recipe import KeepPhase
from thaw.terminal.training import show_gains
from thaw.training.gain import KeepRule, PhaseGain
from thaw.training.skipping import SkippedPhase


class Tables(NullReporter):
    """Keeps the last table."""

    def __init__(self) -> None:
        self.title, self.rows = "", [("",)]

    def table(self, title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        self.title, self.rows = title, list(rows)


@pytest.mark.parametrize("keep", get_args(KeepPhase))
def test_the_gain_of_each_phase_is_shown_with_the_rule_of_the_run(keep: KeepPhase) -> None:
    reporter, is_kept = Tables(), keep == "any_gain"
    gains = (
        PhaseGain("head", 9, 2.0, 0.8, None, 0.0, None, True),
        PhaseGain("top", 3, 60.0, 0.804, 0.8, 0.004, 0.0043, is_kept),
    )
    show_gains(gains, (SkippedPhase("deeper", "", 80.0),), KeepRule("accuracy", 300, keep), reporter)
    rule, outcome = {
        "any_gain": ("any gain", "kept"),
        "standard_error": ("a gain of more than one standard error", "not kept: within one standard error"),
    }[keep]
    assert reporter.title == f"Gain of each phase on validation; a later phase is kept for {rule}"
    assert [row[-1] for row in reporter.rows] == ["", outcome, "skipped, which saved at most 80 s"]
    assert reporter.rows[1][4:6] == ("+0.4 points", "0.4 points")
