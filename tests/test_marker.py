import shutil
from pathlib import Path

from PIL import Image

from thaw.bundle import check_sums, digest_of
from thaw.data.walk import Omitted, images_below
from thaw.marker import MARKER, is_written_by_thaw, mark_if_new
from thaw.run_folder import InspectionFolder, RunFolder

RELEASES = Path(__file__).parent / "releases"


def names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def with_image(folder: Path) -> Path:
    (folder / "ok").mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(folder / "ok" / "a.png")
    return folder


def test_a_run_and_an_inspection_are_marked_from_the_start(tmp_path: Path) -> None:
    for folder in (RunFolder.create(tmp_path), InspectionFolder.create(tmp_path)):
        assert names(folder.path) == [MARKER]


def test_every_part_of_a_run_with_images_is_recognised_where_it_is_copied(tmp_path: Path, trained: RunFolder) -> None:
    data = with_image(tmp_path / "data")
    for part, place in [(trained.path, "run"), (trained.model, "deep/bundle"), (trained.model / "golden", "golden")]:
        shutil.copytree(part, data / place)
    omitted = Omitted()
    assert list(images_below(data, omitted)) == ["ok/a.png"]
    assert omitted.written_by_thaw == ["deep/bundle", "golden", "run"]


def test_runs_of_release_0_1_are_recognised_without_the_marker(tmp_path: Path) -> None:
    data = with_image(tmp_path / "data")
    shutil.copytree(RELEASES / "run-0.1.0", data / "old")
    assert MARKER not in names(data / "old")
    assert list(images_below(data, Omitted())) == ["ok/a.png"]


def test_a_bundle_is_the_same_with_and_without_the_marker(tmp_path: Path, trained: RunFolder) -> None:
    shutil.copytree(trained.model, tmp_path / "model")
    digest = digest_of(tmp_path / "model")
    (tmp_path / "model" / MARKER).unlink()
    check_sums(tmp_path / "model")
    assert digest_of(tmp_path / "model") == digest
    assert is_written_by_thaw(names(tmp_path / "model"))


def test_a_folder_that_holds_files_of_the_user_is_not_marked(tmp_path: Path) -> None:
    data = with_image(tmp_path / "data")
    mark_if_new(data / "ok")
    mark_if_new(data / "overlays")
    assert names(data / "ok") == ["a.png"]
    assert names(data / "overlays") == [MARKER]


def test_ordinary_folders_are_not_taken_for_those_of_thaw() -> None:
    assert not is_written_by_thaw(["config.json", "labels.txt", "recipe.yaml", "a.png"])
    assert not is_written_by_thaw([])
