import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import deeper, epochs, regret, schedules, search


def begin_with(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but what is trained."""
    monkeypatch.setattr(schedules, "begun", lambda *_: None)
    monkeypatch.setattr(search, "_search", lambda *_: {})
    monkeypatch.setattr(search, "_print", lambda *_: None)
    for name in ("means", "show_differences"):
        monkeypatch.setattr(epochs, name, lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["benchmark", *words])


@pytest.mark.parametrize("main", [deeper.main, regret.main, epochs.main])
def test_the_cache_that_a_benchmark_clears_is_its_own(
    main: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "of-a-person"))
    begin_with(["cells.csv", "--work", str(tmp_path / "work"), "--seeds", "0"], monkeypatch)
    main()
    assert os.environ["THAW_CACHE"] == str(tmp_path / "work" / "cache")


@pytest.mark.parametrize("main", [deeper.main, regret.main, epochs.main, search.main])
def test_results_of_other_settings_are_not_taken_for_these(
    main: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    words = ["cells.csv", "--work", str(tmp_path / "work"), "--seeds", "0"]
    for settings in (["threads=1", "views=2"], ["views=2", "threads=1"]):
        begin_with([*words, "--set", *settings], monkeypatch)
        main()
    begin_with([*words, "--set", "views=4", "threads=1"], monkeypatch)
    with pytest.raises(SystemExit, match="give another folder"):
        main()
