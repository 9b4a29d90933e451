from pathlib import Path

import pytest

from tests.several import together
from thaw.data.dataset import Dataset
from thaw.data.surfaces import write_surfaces
from thaw.distributed.agreement import check_agreement, check_same
from thaw.errors import TrainingError
from thaw.processes import Process
from thaw.recipe import Recipe


def sentences(outcomes: list[Exception | None]) -> set[str]:
    assert all(isinstance(outcome, TrainingError) for outcome in outcomes)
    return {str(outcome) for outcome in outcomes}


def test_processes_that_agree_go_on_and_leave_nothing(images: Path, tmp_path: Path) -> None:
    def work(process: Process) -> None:
        check_agreement(process, Dataset.open(images), Recipe(), {"the cache": tmp_path})

    assert together(2, work) == [None, None]
    assert not list(tmp_path.iterdir())


def test_another_version_is_refused() -> None:
    outcomes = together(2, lambda process: check_same(process, "version", f"1.{process.rank}", "install one"))
    assert sentences(outcomes) == {"process 1 has another version (1.1) than process 0 (1.0); install one"}


def test_other_images_are_refused(images: Path, tmp_path: Path) -> None:
    write_surfaces(tmp_path / "images", images_per_class=3, size=64, classes=("ok", "scratch", "stain"))

    def work(process: Process) -> None:
        folder = images if process.is_main else tmp_path / "images"
        check_agreement(process, Dataset.open(folder), Recipe(), {})

    (sentence,) = sentences(together(2, work))
    assert "process 1 has another list of images (9 images" in sentence and "(36 images" in sentence


def test_another_recipe_is_refused(images: Path) -> None:
    def work(process: Process) -> None:
        check_agreement(process, Dataset.open(images), Recipe(seed=process.rank), {})

    (sentence,) = sentences(together(2, work))
    assert "process 1 has another recipe" in sentence


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_that_is_not_shared_is_refused(images: Path, tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "cache-1").mkdir()

    def work(process: Process) -> None:
        check_agreement(process, Dataset.open(images), Recipe(), {"the cache": tmp_path / f"cache-{process.rank}"})

    expected = f"process 1 does not see the cache of process 0 in {tmp_path / 'cache-1'}; choose a folder that all"
    (sentence,) = sentences(together(2, work))
    assert sentence.startswith(expected)
    assert not list((tmp_path / "cache-0").iterdir())
