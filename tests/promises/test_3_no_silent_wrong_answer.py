import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import thaw
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.errors import DataError
from thaw.pipeline import evaluate, finetune, load
from thaw.progress import NullReporter
from thaw.recipe import DecodeSettings, Recipe
from thaw.run_folder import RunFolder


def state(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(file): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.fixture
def damaged(images: Path, tmp_path: Path) -> Path:
    """A data set with two unreadable images."""
    folder = tmp_path / "damaged"
    shutil.copytree(images, folder)
    whole = (folder / "ok" / "000.png").read_bytes()
    (folder / "ok" / "damaged.png").write_bytes(whole[: len(whole) // 2])
    (folder / "stain" / "empty.png").write_bytes(b"")
    return folder


def test_training_lists_unreadable_images_and_never_writes_to_the_data(
    damaged: Path, quick: Recipe, tmp_path: Path
) -> None:
    before = state(damaged)
    finetune(Dataset.open(damaged), quick, tmp_path / "runs", reporter=NullReporter())
    assert state(damaged) == before
    run = RunFolder(tmp_path / "runs" / "train-1")
    errors = dict(Manifest.read(run.manifest).errors())
    assert sorted(errors) == ["ok/damaged.png", "stain/empty.png"]
    assert "empty" in errors["stain/empty.png"] and "damaged" in errors["ok/damaged.png"]
    listed = run.unreadable.read_text().splitlines()
    assert len(listed) == 3 and listed[0] == "path,reason"
    splits = dict(
        zip(Manifest.read(run.manifest).column("path"), Manifest.read(run.manifest).column("split"), strict=True)
    )
    assert not splits["ok/damaged.png"] and not splits["stain/empty.png"]


def test_strict_decoding_stops_at_the_first_unreadable_image_and_names_it(
    damaged: Path, quick: Recipe, tmp_path: Path
) -> None:
    strict = quick.model_copy(update={"decode": DecodeSettings(strict=True)})
    with pytest.raises(DataError, match=r"damaged\.png: cannot be read"):
        finetune(Dataset.open(damaged), strict, tmp_path / "runs", reporter=NullReporter())


def test_evaluation_reports_unreadable_images(damaged: Path, trained: RunFolder) -> None:
    classifier = load(trained.path)
    result = evaluate(classifier, Dataset.open(damaged, classifier.task, classifier.classes))
    assert result.images == len(list(damaged.rglob("*.png"))) - 2
    assert sorted(Path(path).name for path, _ in result.unreadable) == ["damaged.png", "empty.png"]


def test_every_path_has_a_prediction_in_order_and_unreadable_ones_have_a_reason(
    damaged: Path, trained: RunFolder
) -> None:
    files = [damaged / "ok" / "damaged.png", damaged / "ok" / "001.png", damaged / "nowhere.png", damaged / "ok"]
    rows = thaw.predict(load(trained.path), files, batch_size=2)
    assert [row.path for row in rows] == files
    assert [row.status for row in rows] == ["error", "ok", "error", "error"]
    assert all(row.reason and not row.labels and not row.probabilities for row in rows if row.status == "error")
    assert "no such file" in rows[2].reason


def test_16_bit_and_rotated_images_are_predicted_like_their_plain_versions(
    images: Path, trained: RunFolder, tmp_path: Path
) -> None:
    grey = np.asarray(Image.open(images / "scratch" / "003.png").convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    turned, exif = Image.fromarray(np.rot90(grey)), Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    plain, deep, upright = thaw.predict(
        load(trained.path), [images / "scratch" / "003.png", tmp_path / "deep.png", tmp_path / "turned.png"]
    )
    assert plain.probabilities == deep.probabilities == upright.probabilities
