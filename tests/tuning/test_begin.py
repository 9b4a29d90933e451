"""The beginning of a search: what is refused before anything is tried."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.searches import RECIPE, SPACE
from thaw import pipeline
from thaw.backbones import build
from thaw.backbones.weights import write_file
from thaw.clock import Clock
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.device import threads_restored
from thaw.errors import RecipeError
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.trial import TrialContext
from thaw.trial import begin as begin_trial
from thaw.tuning.begin import Wanted, begin, resume
from thaw.tuning.limits import Limits
from thaw.tuning.state import Search
from thaw.tuning.workers import conducted

_FOUR_TRIALS = Limits(None, 4)


def begun(
    images: Path,
    runs: Path,
    ranges: dict[str, Any],
    limits: Limits = _FOUR_TRIALS,
    storage: str = "",
    recipe: Recipe = RECIPE,
) -> Search:
    wanted = Wanted(recipe, {**SPACE, **ranges}, ["backbone"], limits, storage)
    with threads_restored():
        return begin(Dataset.open(images), wanted, runs, NullReporter())


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ({"backbone": [RECIPE.backbone, "resnet59"]}, "space: backbone 'resnet59': no such network; did you mean"),
        ({"phases.1.cut": ["head", "stages:99"]}, "space: cut stages:99: mobilenetv3_small_050 has . stages"),
        ({"phases.1.cut": ["head", "block.5"]}, "space: cut 'block.5': mobilenetv3_small_050 has no such stage"),
    ],
)
def test_a_network_or_a_cut_that_there_is_not_is_refused(
    ranges: dict[str, Any], said: str, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=said):
        begun(images, tmp_path / "runs", ranges)
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize("fixed", [["head.dropuot"], "lr", ["views"]])
def test_what_is_fixed_by_a_wrong_name_is_refused_before_images_are_read(
    fixed: str | list[str], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"^fixed: "):
        pipeline.search(tmp_path / "nowhere", RECIPE, {"views": [1, 2]}, tmp_path / "runs", fixed=fixed)


@pytest.mark.parametrize(
    ("decision", "said"),
    [
        ({"recall": {"scrath": 0.99}}, "decision.recall: there is no class 'scrath'; the classes are ok, scratch"),
        ({"costs": {"stain": {"no": 5.0}}}, "decision.costs: there is no class 'no'"),
    ],
)
def test_a_decision_for_a_class_that_there_is_not_is_refused_before_anything_is_tried(
    decision: dict[str, Any], said: str, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=said):
        begun(images, tmp_path / "runs", {}, recipe=RECIPE.with_settings({"decision": decision}))
    assert not list(tmp_path.glob("runs/*"))


def test_a_cut_of_one_of_several_networks_is_tried(images: Path, tmp_path: Path) -> None:
    ranges = {"backbone": [RECIPE.backbone, "resnet18"], "phases.1.cut": ["head", "layer4"]}
    assert begun(images, tmp_path / "runs", ranges).space.values("phases.1.cut") == ("head", "layer4")


def test_time_is_counted_from_before_the_plan_by_every_process(images: Path, tmp_path: Path) -> None:
    """Also by nodes and by those that join before the first trial has ended."""
    first = begun(images, tmp_path / "runs", {}, limits=Limits(600.0, spent=100.0))
    joined = resume(Dataset.open(images), first.folder, first.folder.read_file(), "", NullReporter())
    assert joined.clock.elapsed > 100.0
    assert abs(joined.clock.elapsed - first.clock.elapsed) < 60.0


def test_a_process_that_joins_takes_the_time_of_the_one_that_conducts_the_search(images: Path, tmp_path: Path) -> None:
    """Not that of the newest trial, which ended long ago where the next one is long."""
    first = begun(images, tmp_path / "runs", {})

    def elapsed() -> float:
        return resume(Dataset.open(images), first.folder, first.folder.read_file(), "", NullReporter()).clock.elapsed

    with conducted(first.folder, Clock(None, before=5000.0)):
        assert 5000 < elapsed() < 5060
        an_hour_ago = time.time() - 3600
        os.utime(first.folder.path / ".clock", (an_hour_ago, an_hour_ago))
        assert 8600 < elapsed() < 8660
    # What goes by while nobody conducts it does not count.
    assert elapsed() < 600


def test_a_search_has_its_database_and_weights_also_for_processes_in_other_folders(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    write_file(build(RECIPE), Path("network.safetensors"))
    recipe = RECIPE.model_copy(update={"weights": "network.safetensors"})
    first = begun(images, tmp_path / "runs", {}, storage="sqlite:///study.db", recipe=recipe)
    asked = first.studies["probe"].ask(None)
    monkeypatch.chdir(tmp_path / "elsewhere")
    joined = resume(Dataset.open(images), first.folder, first.folder.read_file(), "", NullReporter())
    assert joined.studies["probe"].unfinished() == [asked]
    assert not list((tmp_path / "elsewhere").iterdir())


def test_images_keep_the_split_that_they_have_in_an_earlier_run(images: Path, tmp_path: Path) -> None:
    """No trial sees the test images of that run."""
    earlier = begin_trial(Dataset.open(images), RECIPE, TrialContext(tmp_path, NullReporter())).folder
    manifest = Manifest.read(earlier.manifest)
    # Splits that nothing but the manifest tells: the first image of training of each class and that of test swap them.
    swapped = list(manifest.column("split"))
    of_class = np.array([labels[0] for labels in manifest.column("labels")])
    for name in manifest.classes:
        first, last = (
            next(row for row in manifest.indices(split) if of_class[row] == name) for split in ("train", "test")
        )
        swapped[first], swapped[last] = "test", "train"
    manifest.with_columns({"split": swapped}).write(earlier.manifest)
    assert Manifest.read(begun(images, tmp_path, {}).folder.manifest).column("split") == swapped


def test_a_database_that_cannot_be_used_is_refused_before_the_plan(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thaw.tuning.begin.plan_trial", lambda *_, **__: pytest.fail("planned"))
    with pytest.raises(RecipeError, match="--storage nothing://host/db: cannot be used"):
        begun(images, tmp_path / "runs", {}, storage="nothing://host/db")
    assert not (tmp_path / "runs").exists()
