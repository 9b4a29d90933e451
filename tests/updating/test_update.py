"""A finished run learns new images without its old ones: what it keeps, what it says, and what it refuses."""

import hashlib
import shutil
from itertools import chain, count
from pathlib import Path

import numpy as np
import pytest

from tests.runs import outcome
from tests.stopping import done_despite_stops
from tests.updating.conftest import Copy
from thaw.bundle import read_bundle
from thaw.cache import cache_folder
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.data.surfaces import write_surfaces
from thaw.errors import DataError, ResumeError, UpdateError, WriteError
from thaw.evaluation import class_changes
from thaw.pipeline import decide, evaluate, finetune, load, predict, report
from thaw.progress import NullReporter
from thaw.recipe import DecisionSettings, Recipe
from thaw.run_folder import RunFolder
from thaw.updating import cache_of_run
from thaw.updating.cache_of_run import clear_run
from thaw.updating.update import update

QUIET = NullReporter()


class Listener(NullReporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


def rows_of(manifest: Manifest) -> list[tuple[str, str]]:
    return list(zip(manifest.column("sha256"), manifest.column("split"), strict=True))


def digests(folder: Path) -> dict[Path, str]:
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_old_classes_keep_their_place_and_old_images_their_split(source: RunFolder, updated: RunFolder) -> None:
    old, new = Manifest.read(source.manifest), Manifest.read(updated.manifest)
    assert read_bundle(updated.model).classes == new.classes == (*old.classes, "crack")
    assert rows_of(new)[: len(old)] == rows_of(old)
    counts = new.counts()["crack"]
    assert counts["train"] > counts["val"] >= 1 and counts["test"] >= 1


def test_what_is_below_the_cut_is_bit_identical(source: RunFolder, updated: RunFolder) -> None:
    old, new = (read_bundle(run.model).backbone for run in (source, updated))
    position = old.cut(source.read_recipe().phases[-1].cut).position
    assert 0 < position < old.head_position and old.digest(position) == new.digest(position)


def test_it_says_which_run_it_updates_and_what_became_of_each_class(source: RunFolder, updated: RunFolder) -> None:
    about = updated.read_update()
    assert about is not None and about.kept and Path(about.source) == source.path
    assert [change.name for change in about.old] == ["ok", "scratch", "stain", ""]
    assert {change.name: change.before for change in about.new}["crack"] is None
    assert "Update of train-1" in (updated.model / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_it_is_a_run_like_any_other(updated: RunFolder, new_images: Path, tmp_path: Path) -> None:
    classifier = load(updated.path)
    (prediction,) = predict(classifier, [next((new_images / "crack").iterdir())])
    assert prediction.status == "ok" and abs(sum(prediction.probabilities) - 1) < 1e-5
    assert evaluate(updated.path, new_images).images_of_run is not None
    assert "crack" in report(updated.path).read_text(encoding="utf-8")
    decided = decide(updated.path, DecisionSettings(recall={"crack": 0.9}), tmp_path / "decided", QUIET)
    assert decided.classes == classifier.classes


def test_an_update_is_updated_and_what_it_knows_is_not_learnt_twice(
    updated: RunFolder, new_images: Path, tmp_path: Path
) -> None:
    write_surfaces(tmp_path / "new", images_per_class=6, size=64, classes=("pits",))
    shutil.copytree(new_images / "ok", tmp_path / "new" / "scratch")
    heard = Listener()
    found = update(updated, tmp_path / "new", tmp_path / "runs", heard)
    assert read_bundle(found.model).classes == ("ok", "scratch", "stain", "crack", "pits")
    about = found.read_update()
    assert about is not None and len(about.parts) == 3
    assert any("18 images of 24 left out" in line for line in heard.said)
    assert any(line.startswith("conflicting labels: 18 of these images") for line in heard.said)
    assert sum(part.images for part in about.parts) == len(Manifest.read(found.manifest))


def test_nothing_is_written_where_there_is_nothing_to_learn(
    updated: RunFolder, new_images: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="there is nothing to learn"):
        update(updated, new_images, tmp_path, QUIET)
    assert not list(tmp_path.iterdir())


def test_a_new_class_with_a_single_image_is_refused(source: RunFolder, tmp_path: Path) -> None:
    write_surfaces(tmp_path / "new", images_per_class=1, size=64, classes=("pits",))
    with pytest.raises(DataError, match="pits has 1, needs 3 more"):
        update(source, tmp_path / "new", tmp_path / "runs", QUIET)
    assert not (tmp_path / "runs").exists()


def test_without_features_the_images_are_needed_and_clearing_removes_those_of_one_run_only(
    trained: RunFolder, source: RunFolder, new_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"not in the cache .* and 36 of 36 images are gone; set THAW_CACHE"):
        update(source, new_images, tmp_path / "runs", QUIET)
    assert not (tmp_path / "runs").exists()
    # The images of this run are still there.
    found = update(trained, new_images, tmp_path / "runs", QUIET)
    with monkeypatch.context() as patch:
        patch.setattr(cache_of_run, "discard", lambda path: path)
        with pytest.raises(WriteError, match="cannot be removed"):
            clear_run(trained, cache_folder())
    assert {entry.kind for entry in clear_run(trained, cache_folder())} == {"pixels", "features"}
    left = {path.name for path in cache_folder().glob("features/*")}
    assert left and not clear_run(trained, cache_folder())
    with pytest.raises(DataError, match="not in the cache"):
        update(source, new_images, tmp_path / "runs", QUIET)
    assert {entry.folder.name for entry in clear_run(found, cache_folder())} >= left
    assert not list(cache_folder().glob("features/*"))


def test_one_that_is_stopped_anywhere_and_run_again_ends_with_the_same_weights(
    without_images: Copy, updated: RunFolder, new_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, folder = without_images(tmp_path), RunFolder(tmp_path / "train-2")
    before = digests(run.path)

    def work() -> RunFolder:
        # That of an update is none that `thaw train --resume` would take.
        with pytest.raises(ResumeError, match="no unfinished run"):
            RunFolder.latest_unfinished(tmp_path)
        return update(run, new_images, tmp_path, QUIET)

    _, stops = done_despite_stops(
        work, folder.path, chain([2], count(8)), monkeypatch, is_done=lambda: folder.is_finished
    )
    assert stops >= 3 and outcome(folder) == outcome(updated)
    assert {path.name for path in tmp_path.iterdir()} == {"train-1", "train-2"} and digests(run.path) == before


def test_an_update_after_which_an_old_class_is_recognised_less_well_is_not_kept(
    source: RunFolder, new_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_changes, "SIGNIFICANCE", 1.1)
    before = digests(source.path)
    with pytest.raises(UpdateError, match=r"is not kept, .*: ok \d+\.\d% to .* is unchanged"):
        update(source, new_images, tmp_path, QUIET)
    refused = RunFolder(tmp_path / "train-1")
    about = refused.read_update()
    assert about is not None and about.kept is False and not refused.model.exists()
    assert digests(source.path) == before
    with pytest.raises(DataError, match="is an update that was not kept"):
        RunFolder.at(refused.path)


@pytest.fixture(scope="module")
def starter_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of the bundled network whose folder of images was deleted."""
    folder = tmp_path_factory.mktemp("starter")
    write_surfaces(folder / "old", images_per_class=16, size=64, classes=("ok", "scratch", "stain"))
    settings = {"preprocessing.image_size": 64, "augment.preset": "light", "views": 2, "engine": "pytorch-fp32"}
    recipe = Recipe(backbone="starter").with_settings({**settings, "phases.1.epochs": 4, "measure.seconds": 0})
    finetune(folder / "old", recipe, folder / "runs", reporter=QUIET)
    shutil.rmtree(folder / "old")
    return RunFolder(folder / "runs" / "train-1")


@pytest.mark.slow
def test_what_it_says_of_old_classes_stays_sane(starter_run: RunFolder, tmp_path: Path) -> None:
    write_surfaces(tmp_path / "new", images_per_class=16, size=64, classes=("crack",))
    found = update(starter_run, tmp_path / "new", tmp_path / "runs", QUIET)
    write_surfaces(tmp_path / "old", images_per_class=16, size=64, classes=("ok", "scratch", "stain"))
    files = [str(file) for file in sorted((tmp_path / "old").rglob("*.png"))]
    before, after = (
        np.array([item.probabilities for item in predict(run.path, files)]) for run in (starter_run, found)
    )
    truth = np.repeat(np.arange(3), 16)
    assert after.shape == (48, 4) and np.allclose(after.sum(axis=1), 1, atol=1e-5)
    assert (after.argmax(axis=1) == truth).mean() >= (before.argmax(axis=1) == truth).mean() - 0.05
    assert after[:, 3].mean() < 0.25


@pytest.mark.slow
def test_a_third_class_makes_two_classes_several(quick: Recipe, tmp_path: Path) -> None:
    write_surfaces(tmp_path / "old", images_per_class=12, size=64, classes=("ok", "scratch"))
    finetune(tmp_path / "old", quick, tmp_path / "runs", reporter=QUIET)
    write_surfaces(tmp_path / "new", images_per_class=12, size=64, classes=("crack",))
    found = update(RunFolder(tmp_path / "runs" / "train-1"), tmp_path / "new", tmp_path / "runs", QUIET)
    classifier = read_bundle(found.model)
    assert classifier.task == "multiclass" and classifier.classes == ("ok", "scratch", "crack")


@pytest.mark.slow
def test_several_labels_per_image_learn_more_images_but_no_new_class(quick: Recipe, tmp_path: Path) -> None:
    write_surfaces(tmp_path / "images", images_per_class=24, size=64, classes=("ok", "scratch", "stain"))

    def table(name: str, numbers: range, extra: str = "") -> Path:
        lines = ["path,labels"]
        for label in ("ok", "scratch", "stain"):
            files = sorted((tmp_path / "images" / label).iterdir())
            lines += [f"{files[number]},{label if label != 'stain' else 'scratch|stain' + extra}" for number in numbers]
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
        return tmp_path / name

    finetune(Dataset.open(table("old.csv", range(14))), quick, tmp_path / "runs", reporter=QUIET)
    run = RunFolder(tmp_path / "runs" / "train-1")
    with pytest.raises(DataError, match="dent is a new class, and with several labels per image nobody has said"):
        update(run, table("other.csv", range(14, 24), "|dent"), tmp_path / "runs", QUIET)
    found = update(run, table("new.csv", range(14, 24)), tmp_path / "runs", QUIET)
    assert read_bundle(found.model).task == "multilabel"
