"""A search in progress: which trials it knows."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from thaw.clock import Clock
from thaw.progress import NullReporter
from thaw.run_folder.search_folder import SearchFile, SearchFolder
from thaw.run_folder.trial_record import TrialName, TrialRecord
from thaw.tuning.space import Space
from thaw.tuning.state import Search
from thaw.tuning.workbench import Workbench

NONE = SimpleNamespace()


def test_a_trial_is_read_once_without_a_look_at_all_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SearchFolder.create(tmp_path)
    folder.trials.mkdir()
    parts = (cast(SearchFile, NONE), cast(Space, NONE), cast(Workbench, NONE), {}, Clock(None), NullReporter())
    search = Search(folder, *parts)
    record = TrialRecord("probe", 0, "sampled", {}, "complete", value=0.5)
    monkeypatch.delattr(SearchFolder, "read_records")
    assert search.record(record.name) is None and search.record(None) is None
    folder.write_record(record)
    assert search.record(record.name) == record
    monkeypatch.delattr(SearchFolder, "read_record")
    assert search.record(record.name) == record


def test_trials_of_other_processes_are_found_in_the_order_in_which_they_ended(tmp_path: Path) -> None:
    folder = SearchFolder.create(tmp_path)
    folder.trials.mkdir()
    parts = (cast(SearchFile, NONE), cast(Space, NONE), cast(Workbench, NONE), {}, Clock(None), NullReporter())
    search = Search(folder, *parts)
    for number, ended in ((0, 2.0), (1, 1.0), (2, 3.0)):
        folder.write_record(TrialRecord("probe", number, "sampled", {}, "complete", value=0.5, ended=ended))
        assert search.record(TrialName("probe", number)) is not None
    assert [record.number for record in search.records()] == [1, 0, 2]
