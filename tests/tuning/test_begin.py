"""The beginning of a search: what is refused before anything is tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.searches import RECIPE, SPACE
from thaw.data.dataset import Dataset
from thaw.device import threads_restored
from thaw.errors import RecipeError
from thaw.progress import NullReporter
from thaw.tuning.begin import Wanted, begin, resume
from thaw.tuning.limits import Limits
from thaw.tuning.state import Search

_FOUR_TRIALS = Limits(None, 4)


def begun(images: Path, runs: Path, ranges: dict[str, Any], limits: Limits = _FOUR_TRIALS, storage: str = "") -> Search:
    wanted = Wanted(RECIPE, {**SPACE, **ranges}, ["backbone"], limits, storage)
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


def test_a_cut_of_one_of_several_networks_is_tried(images: Path, tmp_path: Path) -> None:
    ranges = {"backbone": [RECIPE.backbone, "resnet18"], "phases.1.cut": ["head", "layer4"]}
    assert begun(images, tmp_path / "runs", ranges).space.values("phases.1.cut") == ("head", "layer4")


def test_time_is_counted_from_before_the_plan_by_every_process(images: Path, tmp_path: Path) -> None:
    """Also by nodes and by those that join before the first trial has ended."""
    first = begun(images, tmp_path / "runs", {}, limits=Limits(600.0, spent=100.0))
    joined = resume(Dataset.open(images), first.folder, first.folder.read_file(), "", NullReporter())
    assert joined.clock.elapsed > 100.0
    assert abs(joined.clock.elapsed - first.clock.elapsed) < 60.0


def test_a_database_that_cannot_be_used_is_refused_before_the_plan(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thaw.tuning.begin.plan_trial", lambda *_, **__: pytest.fail("planned"))
    with pytest.raises(RecipeError, match="--storage nothing://host/db: cannot be used"):
        begun(images, tmp_path / "runs", {}, storage="nothing://host/db")
    assert not (tmp_path / "runs").exists()
