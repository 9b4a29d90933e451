import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import thaw
from tests.bundle_files import with_new_sums
from thaw.bundle import read_bundle
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.errors import BundleError, WriteError
from thaw.evaluation.records import read_records
from thaw.pipeline import evaluate, finetune, load
from thaw.progress import NullReporter
from thaw.recipe import HeadSettings, Recipe
from thaw.run_folder import RunFolder


@pytest.fixture
def bundle(trained: RunFolder, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.model, tmp_path / "bundle"))


def test_the_bundle_reproduces_the_evaluation_of_the_run(trained: RunFolder, images: Path) -> None:
    manifest = Manifest.read(trained.manifest)
    written = json.loads(trained.evaluation.read_text())["test"]
    classifier = load(trained.path)
    files = [manifest.file(int(row)) for row in manifest.indices("test")]
    truth = [file.parent.name for file in files]
    predicted = list(thaw.predict(classifier, files))
    records = read_records(trained.predictions, "test")
    assert [manifest.root / path for path in records.paths] == files
    given = np.array([row.probabilities for row in predicted])
    assert np.allclose(given, records.scored.probabilities, rtol=0, atol=1e-4)
    right = np.mean([row.label == name for row, name in zip(predicted, truth, strict=True)])
    assert right == pytest.approx(written["overall"]["accuracy"]["value"])
    assert evaluate(classifier, Dataset.open(images)).images == len(manifest)


def test_all_files_of_the_bundle_have_the_same_permissions(trained: RunFolder) -> None:
    files = [file for file in trained.model.rglob("*") if file.is_file()]
    assert len({file.stat().st_mode for file in files}) == 1


def test_timm_loads_the_bundle_and_gives_the_same_logits(trained: RunFolder) -> None:
    classifier = load(trained.path)
    model = timm.create_model(f"local-dir:{trained.model}", pretrained=True).eval()
    pixels = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    inputs = (pixels.permute(0, 3, 1, 2) / 255.0 - mean) / std
    with torch.inference_mode():
        assert torch.allclose(model(inputs), classifier.logits(pixels), atol=1e-5)


@pytest.mark.parametrize("hidden", [(), (8,)])
def test_a_saved_classifier_gives_identical_probabilities(
    hidden: tuple[int, ...], images: Path, quick: Recipe, tmp_path: Path
) -> None:
    recipe = quick.model_copy(update={"head": HeadSettings(hidden=hidden), "phases": quick.phases[:1]})
    classifier = finetune(Dataset.open(images), recipe, tmp_path / "runs", reporter=NullReporter())
    thaw.save(classifier, tmp_path / "saved")
    files = sorted(images.rglob("*.png"))[::5]
    assert thaw.predict(load(tmp_path / "saved"), files) == thaw.predict(classifier, files)
    assert load(tmp_path / "saved").classes == classifier.classes


def test_a_classifier_on_all_stages_gives_in_its_bundle_what_it_gave_on_validation(
    images: Path, quick: Recipe, tmp_path: Path
) -> None:
    recipe = quick.with_settings({"head.features": "all"})
    finetune(Dataset.open(images), recipe, tmp_path, reporter=NullReporter())
    run = RunFolder(tmp_path / "train-1")
    classifier, manifest = load(run.path), Manifest.read(run.manifest)
    assert classifier.backbone.features == "all" and run.read_recipe().head.features == "all"
    records = read_records(run.predictions, "test")
    predictions = thaw.predict(classifier, [images / path for path in records.paths])
    given = np.array([prediction.probabilities for prediction in predictions])
    assert np.abs(given - records.scored.probabilities).max() < 1e-3 and np.ptp(given) > 0.01
    assert evaluate(classifier, Dataset.open(images)).images == len(manifest)
    own = json.loads((run.model / "config.json").read_text())["thaw"]
    assert (own["format"], own["head"]["features"]) == (2, "all")
    network = timm.create_model(f"local-dir:{run.model}", pretrained=True).eval()
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(network(pixels), classifier.backbone(pixels), atol=1e-5)


def test_a_head_on_the_last_stage_is_written_as_earlier_releases_read_it(bundle: Path) -> None:
    own = json.loads((bundle / "config.json").read_text())["thaw"]
    assert own["format"] == 1 and own["head"].keys() == {"pooling", "hidden", "dropout"}


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "labels.txt", "golden/golden.json"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "removed"])
def test_a_modified_bundle_is_refused_and_the_file_is_named(name: str, damage: str, bundle: Path) -> None:
    file = bundle / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flipped" else content[:-1])
    with pytest.raises(BundleError, match=Path(name).name.replace(".", r"\.")):
        read_bundle(bundle)


def test_weights_that_do_not_reproduce_the_golden_probabilities_are_not_used(bundle: Path) -> None:
    tensors = load_file(bundle / "model.safetensors")
    tensors = {name: value * 2 if value.is_floating_point() else value for name, value in tensors.items()}
    save_file(tensors, bundle / "model.safetensors")
    with_new_sums(bundle)
    read_bundle(bundle)
    with pytest.raises(BundleError, match="does not reproduce the probabilities"):
        load(bundle)
    with pytest.raises(BundleError, match="does not reproduce the probabilities"):
        thaw.predict(bundle, [bundle / "golden" / "00.png"])


@pytest.mark.parametrize("place", ["../elsewhere", "golden/../../elsewhere", "{absolute}"])
def test_a_bundle_that_lists_a_file_elsewhere_is_refused(bundle: Path, place: str) -> None:
    """Whoever copies the files of a bundle by their names would write there."""
    (bundle.parent / "elsewhere").write_bytes(b"content")
    name = place.format(absolute=bundle.parent / "elsewhere")
    with (bundle / "SHA256SUMS").open("a") as sums:
        sums.write(f"{hashlib.sha256(b'content').hexdigest()}  {name}\n")
    with pytest.raises(BundleError, match=r"SHA256SUMS: lists .*elsewhere, which is not in the bundle"):
        read_bundle(bundle)


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_a_run_is_saved_with_its_golden_images_model_card_and_provenance(
    trained: RunFolder, bundle: Path, tmp_path: Path
) -> None:
    (bundle / "notes.txt").write_text("not of the bundle")
    for number, model in enumerate((trained.path, bundle)):
        thaw.save(model, tmp_path / f"saved-{number}")
        assert contents(tmp_path / f"saved-{number}") == contents(trained.model)
    assert {"golden/golden.json", "MODEL_CARD.md"} <= contents(trained.model).keys()


def test_saving_over_an_existing_folder_is_refused(trained: RunFolder) -> None:
    with pytest.raises(WriteError, match="already exists"):
        thaw.save(load(trained.path), trained.model)
