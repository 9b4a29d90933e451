from dataclasses import replace

import pytest

from thaw.metrics import Estimate
from thaw.run_folder import RunFolder
from thaw.terminal.console import ConsoleReporter
from thaw.terminal.results import show_decided


def test_metrics_that_a_decision_changes_are_shown_before_and_after(
    trained: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = trained.read_evaluation().evaluations
    lower = Estimate(0.125, 0.1, 0.2)
    after = {**before, "test": replace(before["test"], overall={**before["test"].overall, "accuracy": lower})}
    show_decided(before, after, ConsoleReporter())
    said = capsys.readouterr().out
    assert "test, before" in said and "12.5% (10.0% to 20.0%)" in said and "AUROC" not in said
    show_decided(before, before, ConsoleReporter())
    said = capsys.readouterr().out
    assert "before" not in said and "val: flagged for review" in said
