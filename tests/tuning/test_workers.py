"""Several processes on one search."""

from __future__ import annotations

from pathlib import Path

import pytest

from thaw.errors import WriteError
from thaw.pipeline.tuning import continue_search
from thaw.progress import NullReporter
from thaw.run_folder.search_folder import SearchFolder
from thaw.tuning import workers
from thaw.tuning.workers import check_locks, choosing


def test_a_search_on_a_drive_without_file_locks_is_not_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes would take the same trials."""
    SearchFolder(tmp_path).file.write_text("{}")
    monkeypatch.setattr(workers, "lock", lambda handle: None)
    with pytest.raises(
        WriteError, match="has no file locks, as on Windows and some network drives, without which only one process can"
    ):
        continue_search(tmp_path, tmp_path, joins=True, reporter=NullReporter())


def test_another_process_that_chooses_a_trial_has_locks(tmp_path: Path) -> None:
    with choosing(SearchFolder(tmp_path)):
        check_locks(SearchFolder(tmp_path))
