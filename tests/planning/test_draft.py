"""A draft of the plan on real small images: what it counts before and after features are chosen."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from thaw import atomic
from thaw.clock import Clock
from thaw.data.dataset import Dataset
from thaw.data.surfaces import write_surfaces
from thaw.planning import baseline, draft
from thaw.planning.draft import Draft, Material, draft_plan
from thaw.planning.measurements import PlannedRecipe
from thaw.planning.selected import Selected
from thaw.planning.selecting import Questions
from thaw.planning.time_limit import TimeLimit
from thaw.progress import NullReporter
from thaw.recipe import PreprocessingSettings, Recipe
from thaw.trial.planning import prepare, with_new_head

BASE = Recipe(
    backbone="mobilenetv3_small_050",
    weights="random",
    engine="pytorch-fp32",
    precision="fp32",
    strategy="top",
    cache_gb=1.0,
    preprocessing=PreprocessingSettings(image_size=64),
)
ALL, LAST = Selected({"head.features": "all"}, ()), Selected({}, ())


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "surfaces"
    write_surfaces(folder, images_per_class=20, size=64, classes=("ok", "scratch", "stain"))
    return folder


def drafted(surfaces: Path, cache: Path, features: str) -> Draft:
    recipe = BASE.with_settings({"head.features": features})
    prepared, backbone = prepare(Dataset.open(surfaces), recipe, None, NullReporter())
    classifier = with_new_head(backbone, prepared, recipe)
    return draft_plan(Material(PlannedRecipe(recipe, ()), prepared, classifier, cache))


def answering(selected: Selected) -> Questions:
    """Questions whose answers are known."""
    return cast(Questions, SimpleNamespace(of_plain_views=lambda: selected, seconds_ahead=0.0))


def test_a_plan_for_all_stages_counts_the_same_however_they_were_chosen(
    surfaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path))
    requested, chosen = (drafted(surfaces, tmp_path, features) for features in ("all", "auto"))
    plan = chosen.finished(ALL)
    assert plan.forecast.disk_bytes == requested.plan.forecast.disk_bytes > chosen.plan.forecast.disk_bytes
    assert plan.forecast.phase_seconds[0] == requested.plan.forecast.phase_seconds[0]
    assert chosen.finished(LAST).forecast == chosen.plan.forecast


def test_heads_of_many_classes_may_take_no_more_than_their_share_of_a_time_limit(
    surfaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path))
    short = drafted(surfaces, tmp_path, "last")
    long = replace(short, plan=replace(short.plan, forecast=replace(short.plan.forecast, phase_seconds=(36_000.0,))))
    seconds = [
        long.questions(NullReporter().bar, False, limit).plain_seconds for limit in (None, TimeLimit(Clock(915.0)))
    ]
    assert seconds == pytest.approx([4500.0, 100.0], rel=0.01)


def test_a_head_too_wide_to_be_solved_in_memory_has_no_baseline(
    surfaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path))
    requested, chosen = (drafted(surfaces, tmp_path, features) for features in ("all", "auto"))
    most = (requested.measured.bytes_to_solve(1) + chosen.measured.bytes_to_solve(1)) // 2
    monkeypatch.setattr(baseline, "MAX_LBFGS_BYTES", most)
    monkeypatch.setattr(draft, "BASELINE_FROM", 0.0)
    assert requested.baseline(answering(LAST)) is None
    assert chosen.baseline(answering(ALL)) is None
    found = chosen.baseline(answering(LAST))
    assert found is not None and found.recipe.phases[0].solver == "lbfgs"


def test_a_head_that_takes_long_for_its_many_outputs_has_no_baseline(
    surfaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path))
    monkeypatch.setattr(draft, "BASELINE_FROM", 0.0)
    few = drafted(surfaces, tmp_path, "last")
    many = replace(few, measured=replace(few.measured, outputs=2000, solving=1e6))
    assert few.baseline(answering(LAST)) is not None and many.baseline(answering(LAST)) is None


def test_features_in_the_cache_leave_the_room_for_features_as_it_is(
    surfaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path))
    free, stored = 3 << 30, 1 << 30
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    before = drafted(surfaces, tmp_path, "last").measured
    assert before.free_bytes == free
    entry = tmp_path / "features" / "earlier"
    entry.mkdir(parents=True)
    (entry / atomic.SEAL).touch()
    with (entry / "features.bin").open("wb") as sparse:
        sparse.truncate(stored)
    free -= stored
    assert drafted(surfaces, tmp_path, "last").measured.free_bytes == before.free_bytes
