from pathlib import Path

from thaw.run_folder.search_folder import SearchFolder
from thaw.tuning.page import _so_far


def test_a_search_that_compares_its_best_trial_does_not_claim_to_search(tmp_path: Path) -> None:
    folder = SearchFolder.create(tmp_path)
    assert _so_far(folder, []) == "Searching: 0 trials so far."
    folder.write_ended("4 trials were asked for")
    assert _so_far(folder, []) == "0 trials tried; the best one is compared with the plan on the test images."
