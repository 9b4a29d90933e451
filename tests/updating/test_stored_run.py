"""What an update takes from its run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.updating.conftest import Copy
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import key_of_store
from thaw.errors import DataError
from thaw.progress import NullReporter
from thaw.run_folder import RunFolder
from thaw.updating.stored_run import StoredRun


def test_the_pixels_of_a_run_are_known_from_its_plan_and_of_an_older_one_from_its_manifest(
    source: RunFolder, trained: RunFolder
) -> None:
    plan, run = trained.read_plan(), StoredRun.read(source)
    assert plan is not None
    spec = run.classifier.backbone.facts.pixels
    assert plan.pixels == key_of_store(Manifest.read(trained.manifest), spec, run.recipe.decode)
    for split in ("train", "val", "test"):
        (features,) = run.features(split, NullReporter())
        assert len(features.rows) == len(run.manifest.indices(split))
        assert features.views == (run.recipe.views if split == "train" else 1)


def test_an_image_that_was_never_readable_is_not_missed(
    trained: RunFolder, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, folder = RunFolder(tmp_path / "train-1"), Path(shutil.copytree(images, tmp_path / "images"))
    shutil.copytree(trained.path, run.path)
    manifest = Manifest.read(run.manifest)
    gone, damaged = (int(row) for row in manifest.indices("train")[:2])
    columns: dict[str, list[Any]] = {name: manifest.column(name) for name in ("status", "split", "sha256")}
    for row in (gone, damaged):
        columns["status"][row], columns["split"][row] = "error", None
    columns["sha256"][gone] = None
    replace(manifest.with_columns(columns), root=folder).write(run.manifest)
    manifest = Manifest.read(run.manifest)
    manifest.file(gone).unlink()
    manifest.file(damaged).write_bytes(b"damaged in another way")
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "empty"))
    (features,) = StoredRun.read(run).features("train", NullReporter())
    assert (
        len(features.rows)
        == len(manifest.indices("train"))
        == len(Manifest.read(trained.manifest).indices("train")) - 2
    )
    manifest.file(int(manifest.indices("val")[0])).write_bytes(b"changed")
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "empty too"))
    with pytest.raises(DataError, match="the images were changed"):
        StoredRun.read(run).features("val", NullReporter())


def test_a_run_that_trained_every_layer_has_nothing_to_replay(without_images: Copy, tmp_path: Path) -> None:
    run = without_images(tmp_path)
    recipe = run.read_recipe()
    phases = tuple(phase.model_copy(update={"cut": "pixels"}) for phase in recipe.phases)
    run.write_recipe(recipe.model_copy(update={"phases": phases}))
    with pytest.raises(DataError, match=r"trained every layer .* train a new run on all images"):
        StoredRun.read(run)


def test_a_run_without_validation_images_is_refused(without_images: Copy, tmp_path: Path) -> None:
    run = without_images(tmp_path)
    manifest = Manifest.read(run.manifest)
    splits = ["train" if split == "val" else split for split in manifest.column("split")]
    manifest.with_columns({"split": splits}).write(run.manifest)
    with pytest.raises(DataError, match="so no update of it could be judged"):
        StoredRun.read(run)


def test_a_plan_of_an_earlier_version_is_read(without_images: Copy, tmp_path: Path) -> None:
    run = without_images(tmp_path)
    parts = StoredRun.read(run).parts
    values = json.loads(run.plan.read_text(encoding="utf-8"))
    del values["pixels"]
    run.plan.write_text(json.dumps(values), encoding="utf-8")
    plan = run.read_plan()
    assert plan is not None and plan.pixels == ""
    assert StoredRun.read(run).parts == parts
