"""What a new trial takes from the runs before it."""

import shutil
from pathlib import Path

from tests.reporters import Listening
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder
from thaw.run_folder.search_folder import SearchFile, SearchFolder
from thaw.trial import TrialContext, begin


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
