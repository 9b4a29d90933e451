from pathlib import Path

from thaw.run_folder.search_folder import SearchFolder, TrialRecord
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
