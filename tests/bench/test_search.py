import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench import search
from thaw.run_folder.search_folder import SearchFolder


def test_after_an_interruption_the_new_search_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SearchFolder.create(tmp_path / "cells-0-9")
    read: list[str] = []

    def run(arguments: Sequence[str]) -> float:
        if arguments[0] == "search":
            SearchFolder.create(Path(arguments[-1]))
        return 1.0

    def compared(folder: SearchFolder) -> dict[str, Any]:
        read.append(folder.path.name)
        return {}

    monkeypatch.setattr(search, "_timed", run)
    monkeypatch.setattr(search, "_compared", compared)
    search._search("cells.csv", 0, argparse.Namespace(work=tmp_path, seconds=9.0, settings=[], space=None))
    assert read == ["search-2"]


@pytest.mark.parametrize("setting", ["seed=3", "split.seed=3"])
def test_the_seed_of_a_search_is_given_in_one_place(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["search", "cells.csv", "--work", str(tmp_path), "--set", setting])
    monkeypatch.setattr(search, "_search", lambda *_: {})
    with pytest.raises(SystemExit):
        search.main()
    assert f"--set {setting}: " in capsys.readouterr().err
