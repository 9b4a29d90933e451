from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from thaw.bundle_path import bundle_of
from thaw.cache import cache_folder
from thaw.errors import DataError, ResumeError, WriteError
from thaw.run_folder import RunFolder


def test_runs_are_numbered_and_never_share_a_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        names = [run.path.name for run in pool.map(lambda _: RunFolder.create(tmp_path), range(20))]
    assert sorted(names) == sorted(f"train-{number}" for number in range(1, 21))


def test_a_number_is_not_used_again_below_the_highest(tmp_path: Path) -> None:
    (tmp_path / "train-7").mkdir()
    (tmp_path / "notes").mkdir()
    assert RunFolder.create(tmp_path).path.name == "train-8"


def test_a_folder_that_was_filled_elsewhere_becomes_the_next_run(tmp_path: Path) -> None:
    runs, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    RunFolder.create(runs)
    elsewhere.mkdir()
    (elsewhere / "recipe.yaml").touch()
    adopted = RunFolder.adopt(runs, elsewhere)
    assert adopted.path == runs / "train-2" and adopted.recipe.is_file() and not elsewhere.exists()


def test_a_folder_that_was_filled_elsewhere_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the folder that another process has just made either, nor a file."""
    runs, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (runs / "train-1").mkdir(parents=True)
    (runs / "train-2").touch()
    monkeypatch.setattr(RunFolder, "_below", lambda _: [])
    assert RunFolder.adopt(runs, elsewhere).path == runs / "train-3"
    assert (runs / "train-1").is_dir() and (runs / "train-2").is_file()
    with pytest.raises(WriteError):
        RunFolder.adopt(runs, tmp_path / "nowhere")
    assert not (runs / "train-4").exists()


def test_the_newest_unfinished_run_is_the_one_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match="no unfinished run"):
        RunFolder.latest_unfinished(tmp_path / "absent")
    runs = [RunFolder.create(tmp_path) for _ in range(11)]
    runs[10].evaluation.write_text("{}")
    assert RunFolder.latest_unfinished(tmp_path) == runs[9]


def test_a_bundle_is_found_by_its_run_or_itself(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path)
    run.model.mkdir()
    (run.model / "config.json").write_text("{}")
    assert bundle_of(run.path) == bundle_of(run.model) == run.model
    with pytest.raises(DataError, match="no such run or bundle"):
        bundle_of(tmp_path / "nothing")


def test_a_run_that_is_not_finished_says_how_to_go_on(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path)
    run.recipe.write_text("")
    with pytest.raises(DataError, match="--resume"):
        bundle_of(run.path)


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("THAW_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "thaw"


def test_a_run_is_found_by_its_name_and_by_nothing_else(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path)
    (tmp_path / "inspect-1").mkdir()
    assert RunFolder.named(tmp_path, "train-1") == run == RunFolder.numbered(tmp_path, 1)
    for name in (
        "",
        ".",
        "train-2",
        "train-1/",
        "./train-1",
        f"../{tmp_path.name}/train-1",
        "inspect-1",
        "train-\u0661",
        "\0",
    ):
        assert RunFolder.named(tmp_path, name) is None
