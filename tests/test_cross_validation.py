"""Cross-validation gives on a cluster what it gives here."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import thaw as command
from tests.cluster.pretended import Pretended
from tests.cluster.two_nodes import TwoNodes, Watching, threads
from thaw import cross_validation
from thaw.backbones import build
from thaw.backbones.weights import write_file
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.data.surfaces import write_surfaces
from thaw.errors import ClusterError, DataError
from thaw.features import cluster_pass
from thaw.features.passes import BATCH
from thaw.pipeline import cross_validate, finetune
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Ray clusters are for Linux")
slow = pytest.mark.slow


@slow
@on_linux
@pytest.mark.parametrize("whole", [False, True], ids=["heads", "whole runs"])
def test_cross_validation_gives_what_it_gives_here(
    ray_nodes: TwoNodes, trained: RunFolder, tmp_path: Path, whole: bool
) -> None:
    ray_nodes.add()
    run = Path(shutil.copytree(trained.path, tmp_path / "train-1"))

    def found(cluster: str | None) -> Any:
        shutil.rmtree(run / "folds", ignore_errors=True)
        return cross_validate(run, 2, 1 if whole else 2, whole, NullReporter(), cluster)

    with threads(1):
        assert found(ray_nodes.address) == found(None)
    assert whole == (run / "folds" / "of-2" / "seed-0-fold-2" / "train-1" / "model").is_dir()


@slow
@on_linux
def test_heads_need_no_shared_storage_and_whole_runs_say_that_they_do(
    second_is_blind: TwoNodes, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_surfaces(tmp_path / "images", images_per_class=40, size=64, classes=("ok", "scratch"))
    finetune(Dataset.open(tmp_path / "images"), quick, tmp_path, reporter=NullReporter())
    run, watching = tmp_path / "train-1", Watching()
    # The least that is a part, which consists of whole batches.
    monkeypatch.setattr(cluster_pass, "ROWS", BATCH)
    with threads(1):
        found = []
        for place, cluster in (("here", None), ("there", second_is_blind.address)):
            # Features are extracted in both places.
            monkeypatch.setenv("THAW_CACHE", str(tmp_path / place))
            found.append(cross_validate(run, 2, 1, reporter=watching, cluster=cluster))
    assert found[0] == found[1]
    assert any(line.startswith("images are sent to the nodes through Ray: node ") for line in watching.said)
    with pytest.raises(ClusterError, match=r"does not see .*: whole runs are not sent to them$"):
        cross_validate(run, 2, 1, True, NullReporter(), second_is_blind.address)


def test_whole_runs_compute_with_no_more_threads_than_a_node_has_cpus(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(Pretended):
        def starmap(self, *arguments: Any) -> Any:
            super().starmap(*arguments)
            raise ClusterError("asked")

    run = RunFolder(Path(shutil.copytree(trained.path, tmp_path / "train-1")))
    recipe = run.read_recipe().model_copy(update={"threads": 8})
    monkeypatch.setattr(RunFolder, "read_recipe", lambda self: recipe)
    cluster = Refusing.of(2, [2])
    with pytest.raises(ClusterError, match="asked"):
        cross_validation.cross_validate(run, 2, 1, True, NullReporter(), cluster)
    (first, *_), device = cluster.asked
    assert device.threads == Recipe.model_validate_json(str(first[0])).threads == 2


def test_nodes_must_see_weights_of_the_users_under_the_path_that_they_are_told(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(Path(shutil.copytree(trained.path, tmp_path / "train-1")))
    monkeypatch.chdir(tmp_path)
    recipe = run.read_recipe()
    write_file(build(recipe), Path("network.safetensors"))
    recipe = recipe.model_copy(update={"weights": "network.safetensors"})
    monkeypatch.setattr(RunFolder, "read_recipe", lambda self: recipe)
    cluster = Pretended.of(1, [1])
    with pytest.raises(ValueError):
        cross_validation.cross_validate(run, 2, 1, True, NullReporter(), cluster)
    weights = tmp_path / "network.safetensors"
    assert weights in cluster.checked
    assert Recipe.model_validate_json(str(cluster.asked[0][0][0])).weights == str(weights)


def test_no_whole_run_is_trained_where_one_would_have_too_few_images_of_a_class(
    trained: RunFolder, tmp_path: Path
) -> None:
    """Four images of a class can be split in three, but in three folds one of them tests two of the four."""
    run = RunFolder(Path(shutil.copytree(trained.path, tmp_path / "train-1")))
    manifest = Manifest.read(run.manifest)
    stains = [row for row, (label,) in enumerate(manifest.column("labels")) if label == "stain"]
    kept = [row for row in range(len(manifest)) if row not in stains[4:]]
    replace(manifest, table=manifest.table.take(kept)).write(run.manifest)
    message = r"too few images to split: stain has 2, needs 1 more .*, or try more folds: these are left .* in fold \d$"
    with pytest.raises(DataError, match=message):
        cross_validate(run.path, 3, 1, True, NullReporter())
    assert not list((run.path / "folds" / "of-3").glob("seed-*"))


def test_evaluate_on_a_cluster_needs_folds(
    trained: RunFolder, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "evaluate", trained.path, images, "--cluster", "local") == 2
    assert "--folds K" in capsys.readouterr().err
