"""`thaw update` and `thaw cache clear --run` on the command line."""

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Refuse
from tests.cli.running import thaw
from thaw.data.surfaces import write_surfaces
from thaw.evaluation import class_changes
from thaw.run_folder import RunFolder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("update", "nothing", "new"), "nothing: there is no such run"),
        (("update", ".", "new"), "is not a run folder"),
        (("update", "RUN", "new"), "new: no such folder"),
        (("update", "RUN", "new.csv"), "new.csv"),
        (("cache", "clear", "--run", "nothing"), "nothing: there is no such run"),
        (("cache", "clear", "pixels", "--run", "RUN"), "give one of the two"),
    ],
)
def test_bad_input_is_one_sentence(trained: RunFolder, refuse: Refuse, words: tuple[str, ...], said: str) -> None:
    heard = refuse(*(trained.path if word == "RUN" else word for word in words)).err
    assert said in heard and heard.count("\n") == 1


def test_the_new_run_is_next_to_the_old_one_also_from_within_that(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_surfaces(tmp_path / "new", images_per_class=5, size=64, classes=("crack",))
    shutil.copytree(trained.path, tmp_path / "runs" / "train-1")
    monkeypatch.chdir(tmp_path / "runs" / "train-1")
    thaw(monkeypatch, "update", ".", tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["train-1", "train-2"]


def test_one_that_is_not_kept_ends_with_exit_code_2(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_surfaces(tmp_path / "new", images_per_class=5, size=64, classes=("pits",))
    monkeypatch.setattr(class_changes, "SIGNIFICANCE", 1.1)
    assert thaw(monkeypatch, "update", trained.path, tmp_path / "new", "--runs", tmp_path / "runs") == 2
    said = capsys.readouterr()
    assert "Old classes on the run's own validation and test images" in said.out
    assert "the update is not kept" in said.err
