"""What `thaw search` says about a wrong command line, before anything is computed."""

from pathlib import Path

import pytest

from tests.cli.conftest import Refuse
from thaw.cli.tuning import _is_that_of
from thaw.recipe import Recipe
from thaw.run_folder.search_folder import SearchFile


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--time", "soon"], "--time soon: is not a duration; write it as 90s, 30m or 1h30m"),
        (["--time", "0s"], "--time 0s: is not a duration"),
        (["--time", "", "--resume", "--runs", "nowhere"], "--time : is not a duration; write it as 90s"),
        (["--time", "", "--join", "nowhere"], "--time : is not a duration"),
        (["--space", "nowhere.yaml"], "nowhere.yaml: cannot be read as YAML"),
        (["--join", "nowhere"], "nowhere: there is no such search"),
        (["--resume", "--runs", "nowhere"], "nowhere: there is no unfinished search to resume"),
        (["--cluster", "local", "--join", "nowhere"], "--refit and --cluster are for the process that began"),
        (
            ["--refit", "--join", "nowhere"],
            "--refit and --cluster are for the process that began",
        ),
        (
            ["--time", "5m", "--join", "nowhere"],
            "--refit and --cluster are for the process that began",
        ),
        (
            ["--trials", "9", "--join", "nowhere"],
            "--refit and --cluster are for the process that began",
        ),
        (
            ["--resume", "--join", "nowhere"],
            "--resume is for a search that nobody works on, --join for one that goes on",
        ),
        (["--cluster", "nowhere"], "write local, or HOST:PORT of the head"),
        (["--set", "head.dropuot=0.1"], "unknown key 'dropuot'; did you mean 'dropout'?"),
    ],
)
def test_a_wrong_command_is_one_sentence(words: list[str], said: str, images: Path, refuse: Refuse) -> None:
    error = refuse("search", images, *words).err
    assert said in error and error.count("\n") == 1


def test_weights_by_another_path_are_those_that_a_search_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the same command resumes it."""
    monkeypatch.chdir(tmp_path)
    Path("network.safetensors").touch()
    typed, absolute = (Recipe(weights=str(folder / "network.safetensors")) for folder in (Path(), tmp_path))
    for requested in (typed, absolute):
        begun = SearchFile(requested, None, Recipe(), {}, {}, "accuracy", 0)  # type: ignore[arg-type]
        assert _is_that_of(begun, typed) and _is_that_of(begun, absolute) and _is_that_of(begun, None)
        assert not _is_that_of(begun, Recipe(weights="other.safetensors"))


def test_a_folder_that_is_not_of_a_search_is_refused(images: Path, tmp_path: Path, refuse: Refuse) -> None:
    assert "is not the folder of a search" in refuse("search", images, "--join", tmp_path).err
