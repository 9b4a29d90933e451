"""What `thaw search` says about a wrong command line, before anything is computed."""

from pathlib import Path

import pytest

from tests.cli.conftest import Refuse


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--time", "soon"], "--time soon: is not a duration; write it as 90s, 30m or 1h30m"),
        (["--time", "0s"], "--time 0s: is not a duration"),
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


def test_a_folder_that_is_not_of_a_search_is_refused(images: Path, tmp_path: Path, refuse: Refuse) -> None:
    assert "is not the folder of a search" in refuse("search", images, "--join", tmp_path).err
