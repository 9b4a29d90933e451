"""What the plan measures on real small images: what is asked, what is remembered, and what becomes of the recipe."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pyarrow as pa
import pytest

from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.data.prepare import Prepared
from thaw.data.surfaces import write_surfaces
from thaw.planning.across import across_groups
from thaw.planning.plan import Plan
from thaw.progress import NullReporter
from thaw.recipe import PreprocessingSettings, Recipe
from thaw.selection import head_times
from thaw.selection.sample import Sample
from thaw.trial import plan_trial

BASE = Recipe(
    backbone="mobilenetv3_small_050",
    weights="random",
    engine="pytorch-fp32",
    precision="fp32",
    strategy="head",
    cache_gb=1.0,
    preprocessing=PreprocessingSettings(image_size=64),
)


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three kinds of small steel surfaces, forty of each."""
    folder = tmp_path_factory.mktemp("data") / "surfaces"
    write_surfaces(folder, images_per_class=40, size=64, classes=("ok", "scratch", "stain"))
    return folder


def planned(surfaces: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> Plan:
    """The plan with a cache of its own, and enough time for every question."""
    monkeypatch.setenv("THAW_CACHE", str(cache))
    recipe = BASE.with_settings({"measure.seconds": 1000, **settings})
    return plan_trial(Dataset.open(surfaces), recipe, None, NullReporter()).plan


def reasons(plan: Plan) -> dict[str, str]:
    return {choice.setting: choice.reason for choice in plan.choices}


def test_open_questions_are_measured_with_their_standard_errors_and_remembered(
    surfaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = planned(surfaces, tmp_path, monkeypatch)
    for setting in ("head.features", "augment.preset"):
        assert "cross-validated on" in reasons(first)[setting] and " ± " in reasons(first)[setting]
    assert first.estimates is not None and 0.3 < first.estimates.similar.accuracy <= 1.0
    keep = "standard_error" if first.estimates.differ else "any_gain"
    assert first.recipe.keep_phase == keep and reasons(first)["keep_phase"] != "as requested"
    assert "class_weights" in reasons(first) and "cross-validated" not in reasons(first)["class_weights"]

    again = planned(surfaces, tmp_path, monkeypatch)
    assert reasons(again)["head.features"].startswith("remembered from an earlier run: accuracy")
    assert (again.recipe, again.estimates) == (first.recipe, first.estimates)


def test_a_class_with_one_training_image_is_named_and_the_others_are_measured(
    surfaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [*sorted(surfaces.rglob("*.png"))[::2], next((surfaces / "ok").iterdir())]
    names = [*(file.parent.name for file in files[:-1]), "burr"]
    splits = ["val" if number % 5 == 0 else "train" for number in range(len(files) - 1)]
    rows = zip(files, names, [*splits, "train"], strict=True)
    lines = ["path,label,split", *(f"{file},{name},{split}" for file, name, split in rows)]
    (tmp_path / "images.csv").write_text("\n".join(lines), encoding="utf-8")
    plan = planned(tmp_path / "images.csv", tmp_path / "cache", monkeypatch, **{"augment.preset": "none"})
    assert reasons(plan)["measure"].endswith("burr has 1 image: not tested")
    assert plan.estimates is not None and "in 5 folds" in reasons(plan)["head.features"]


def test_that_too_few_images_are_not_measured_is_a_reason_of_the_plan(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(images, tmp_path, monkeypatch)
    assert plan.estimates is None
    assert reasons(plan)["measure"].startswith("not measured, because there are ")
    assert "measure" not in reasons(planned(images, tmp_path, monkeypatch, **{"measure.seconds": 0}))


def test_what_the_recipe_sets_is_not_asked(surfaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"head.features": "last", "augment.preset": "strong", "class_weights": "balanced"}
    found = planned(surfaces, tmp_path, monkeypatch, **settings)
    assert not [reason for reason in reasons(found).values() if "cross-validated" in reason]
    assert (found.recipe.head.features, found.recipe.augment.preset) == ("last", "strong")
    assert found.recipe.class_weights == "balanced"
    assert found.estimates is not None


def test_values_of_the_augmentation_that_the_recipe_sets_are_kept_and_not_measured(
    surfaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"augment.rotation": 90.0, "augment.vertical_flip": True, "strategy": "top", "head.features": "last"}
    found = planned(surfaces, tmp_path, monkeypatch, **settings)
    augment = found.recipe.augment
    assert (augment.preset, augment.rotation, augment.vertical_flip) == ("standard", 90.0, True)
    assert all(phase.augment is None for phase in found.recipe.phases)
    assert reasons(found)["augment.preset"] == "not measured, because rotation, vertical_flip are set"


def test_a_plan_without_room_for_features_measures_and_leaves_none(
    surfaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = planned(surfaces, tmp_path, monkeypatch, cache_gb=0, **{"augment.preset": "none"})
    assert "cross-validated" in reasons(found)["head.features"]
    assert not list((tmp_path / "features").glob("*"))


@pytest.mark.parametrize(
    ("seconds", "left_out", "reason"),
    [
        pytest.param(1e-3, False, "", id="time for all"),
        pytest.param(600.0, True, "no time for head.features", id="time for one head"),
        pytest.param(4000.0, True, "not measured, because a head for 3 classes would take 67 min of 17 min", id="none"),
    ],
)
def test_heads_of_many_classes_are_measured_as_far_as_there_is_time(
    surfaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, left_out: bool, reason: str
) -> None:
    monkeypatch.setattr(head_times, "MANY_CLASSES", 2)
    monkeypatch.setattr(head_times, "predicted_seconds", lambda *_: seconds)
    monkeypatch.setattr("thaw.planning.selecting.across_groups", lambda *_: None)
    found = planned(surfaces, tmp_path, monkeypatch, **{"augment.preset": "none", "measure.image_sizes": []})
    assert reasons(found).get("measure", "") == reason
    assert ("cross-validated" not in reasons(found)["head.features"]) == left_out
    assert (found.estimates is None) == reason.startswith("not measured")


def test_near_duplicates_of_two_groups_are_in_one_fold_across_groups() -> None:
    parts = np.arange(40) // 2
    units = parts % 10
    manifest = Manifest(pa.table({"group": [f"part {part}" for part in parts]}), ("a", "b"), "multiclass", Path())
    sample = Sample(np.arange(40), np.arange(40) % 2, units)
    found = across_groups(cast(Prepared, SimpleNamespace(manifest=manifest)), sample, np.zeros((40, 1)), (1,))
    assert found is not None and found.grouping == "groups"
    assert all(len(np.unique(found.numbers[units == unit])) == 1 for unit in np.unique(units))


def test_without_time_nothing_is_measured(surfaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = planned(surfaces, tmp_path, monkeypatch, **{"measure.seconds": 0})
    assert found.estimates is None
    assert (found.recipe.head.features, found.recipe.augment.preset) == ("last", "standard")
