from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from thaw.run_folder.search_folder import SearchFile, SearchFolder
from thaw.run_folder.trial_record import TrialName, TrialRecord
from thaw.tuning import page
from thaw.tuning.page import _latency_chart, _so_far


def test_a_search_that_compares_its_best_trial_does_not_claim_to_search(tmp_path: Path) -> None:
    folder = SearchFolder.create(tmp_path)
    assert _so_far(folder, []) == "Searching: 0 trials so far."
    folder.write_ended("4 trials were asked for")
    assert _so_far(folder, []) == "0 trials tried; the best one is compared with the plan."


def test_latency_is_drawn_only_where_trials_differ_in_it() -> None:
    def records(*latencies: float) -> list[TrialRecord]:
        return [
            TrialRecord("probe", number, "sampled", {}, "complete", value=0.5, latency_ms=latency)
            for number, latency in enumerate(latencies)
        ]

    assert _latency_chart(records(8.0, 8.1), "accuracy") == ""
    assert _latency_chart(records(8.0, 12.0), "accuracy").startswith("<svg")


def test_the_recipe_of_a_trial_is_written_once_for_all_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[TrialName] = []
    monkeypatch.setattr(page, "_recipe", lambda record, file: written.append(record.name) or f"of {record.name}")
    folder, file = SearchFolder.create(tmp_path), cast(SearchFile, SimpleNamespace(monitor="accuracy"))
    studies: dict[Any, Any] = {"probe": SimpleNamespace(importances=dict, ranges={})}
    records = [
        TrialRecord("probe", number, "sampled", {}, "complete", value=number / 10, seconds=1.0) for number in range(9)
    ]
    recipes: dict[TrialName, str] = {}
    for number in (3, 6, 9):
        found = page.content(folder, file, records[:number], studies, recipes=recipes)
        assert found == page.content(folder, file, records[:number], studies, recipes=dict(recipes))
        assert [row.recipe for row in found.levels[0].rows] == [f"of {row.name}" for row in found.levels[0].rows]
    assert written == [record.name for record in records]
