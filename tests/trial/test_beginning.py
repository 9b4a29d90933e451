"""What a new trial takes from the runs before it."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.reporters import Listening
from thaw.backbones import build
from thaw.backbones.weights import write_file
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.data.split_units import earlier_splits
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder
from thaw.run_folder.search_folder import SearchFile, SearchFolder
from thaw.trial import TrialContext, begin, earlier_split, resume


def splits(run: RunFolder) -> dict[str, str]:
    manifest = Manifest.read(run.manifest)
    return dict(zip(manifest.column("path"), manifest.column("split"), strict=True))


def test_an_image_that_the_newest_run_lacks_keeps_the_split_of_an_older_one(
    images: Path, quick: Recipe, tmp_path: Path
) -> None:
    data, away, runs = tmp_path / "data", tmp_path / "away", tmp_path / "runs"
    shutil.copytree(images, data)

    def begun(recipe: Recipe = quick) -> tuple[RunFolder, list[str]]:
        reporter = Listening()
        folder = begin(Dataset.open(data), recipe, TrialContext(runs, reporter)).folder
        return folder, [line for line in reporter.said if " their split" in line]

    first, said = begun()
    assert not said
    # Splits that nothing but the manifest tells.
    manifest = Manifest.read(first.manifest)
    chosen = [path for path, split in splits(first).items() if split == "train" and path.startswith("ok")][:3]
    old = splits(first)
    manifest.with_columns({"split": ["test" if path in chosen else old[path] for path in old]}).write(first.manifest)
    expected = {path: splits(first)[path] for path in chosen}
    assert set(expected.values()) == {"test"}
    for path in chosen:
        (away / path).parent.mkdir(parents=True, exist_ok=True)
        (data / path).rename(away / path)
    second, said = begun()
    assert said == [f"images that are in {first.path} keep their split"]
    for path in chosen:
        (away / path).rename(data / path)
    begun(quick.model_copy(update={"split": quick.split.model_copy(update={"seed": 5})}))
    last, said = begun()
    assert said == [f"images that are in {second.path} or in 1 older run keep their split"]
    assert splits(last) == {**splits(second), **expected}


def test_an_image_of_an_earlier_search_keeps_its_split(images: Path, quick: Recipe, tmp_path: Path) -> None:
    begun = begin(Dataset.open(images), quick, TrialContext(tmp_path / "elsewhere", NullReporter())).folder
    search = SearchFolder.create(tmp_path / "runs")
    content = SearchFile(quick, begun.read_recipe(), quick, space={}, weights={}, monitor="accuracy", seed=quick.seed)
    search.write_file(content)
    manifest, others = Manifest.read(begun.manifest), {"val": "test", "test": "val"}
    swapped = [others.get(split, split) for split in manifest.column("split")]
    manifest.with_columns({"split": swapped}).write(search.manifest)
    reporter = Listening()
    run = begin(Dataset.open(images), quick, TrialContext(tmp_path / "runs", reporter)).folder
    assert Manifest.read(run.manifest).column("split") == swapped
    assert f"images that are in {search.path} keep their split" in reporter.said
    begin(Dataset.open(images), quick, TrialContext(tmp_path / "runs", reporter))
    assert f"images that are in {run.path} or in 1 older run or search keep their split" in reporter.said


def test_rows_are_read_of_earlier_runs_that_can_tell_a_new_split_only(
    images: Path, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset.open(images)
    first = begin(dataset, quick, TrialContext(tmp_path, NullReporter())).folder
    manifest = Manifest.read(first.manifest)

    def later(number: int, manifest: Manifest) -> RunFolder:
        run = RunFolder(shutil.copytree(first.path, tmp_path / f"train-{number}"))
        manifest.write(run.manifest)
        return run

    test = ["test" for _ in manifest.column("split")]
    changed, same = later(4, manifest.with_columns({"split": test})), later(5, manifest)
    later(6, manifest)
    newest = later(7, manifest)
    later(8, replace(manifest, root=tmp_path / "elsewhere"))
    read, read_all = [], Manifest.read.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(
        Manifest, "read", lambda file, *columns: read.append(file) or read_all(Manifest, file, *columns)
    )
    reporter = Listening()
    known = earlier_split(dataset, quick, tmp_path, reporter)
    assert read == [newest.manifest, changed.manifest, first.manifest] and same.manifest not in read
    assert earlier_splits(known) == earlier_splits(manifest)
    assert reporter.said == [f"images that are in {newest.path} or in 4 older runs keep their split"]


def test_earlier_runs_that_cannot_be_read_are_one_line(images: Path, quick: Recipe, tmp_path: Path) -> None:
    begin(Dataset.open(images), quick, TrialContext(tmp_path, NullReporter()))
    for number in (8, 9):
        broken = RunFolder(tmp_path / f"train-{number}")
        shutil.copytree(tmp_path / "train-1", broken.path)
        broken.manifest.write_bytes(b"no manifest")
    reporter = Listening()
    begin(Dataset.open(images), quick, TrialContext(tmp_path, reporter))
    (line,) = [line for line in reporter.said if "may not keep" in line]
    assert line.startswith(
        f"images that are only in {broken.path}, or in 1 older run that cannot be read either, may not keep their "
        f"split: {broken.manifest}: cannot be"
    )


def test_a_run_is_taken_up_with_its_weights_also_in_another_folder(
    images: Path, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with another file that has the same name there."""
    for name, seed in (("here", 0), ("elsewhere", 1)):
        (tmp_path / name).mkdir()
        recipe = quick.model_copy(update={"seed": seed})
        write_file(build(recipe), tmp_path / name / "network.safetensors")
    monkeypatch.chdir(tmp_path / "here")
    recipe = quick.model_copy(update={"weights": "network.safetensors"})
    context = TrialContext(tmp_path / "runs", NullReporter())
    begun = begin(Dataset.open(images), recipe, context)
    monkeypatch.chdir(tmp_path / "elsewhere")
    resumed = resume(Dataset.open(images), recipe, context)
    expected, weights = (trial.classifier.backbone.network.state_dict() for trial in (begun, resumed))
    assert all(torch.equal(value, weights[key]) for key, value in expected.items())
    assert begun.recipe == resumed.recipe == begun.folder.read_recipe()
