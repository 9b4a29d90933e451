"""An int8 export is kept only if it is accurate on images that did not calibrate it."""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from thaw import pipeline
from thaw.classifier.decision import Decision
from thaw.cli import app
from thaw.data.dataset import Dataset
from thaw.data.surfaces import write_surfaces
from thaw.errors import ExportError
from thaw.exports import onnx_target
from thaw.exports.certificate import Certificate
from thaw.exports.export import Exported, export_bundle, export_int8
from thaw.exports.int8_cost import Quality, Quantisation, check_accuracy_drop, measure_quality
from thaw.exports.labelled_files import LabelledFiles, split_for_calibration
from thaw.pipeline import finetune, load
from thaw.progress import NullReporter
from thaw.recipe import Phase, PreprocessingSettings, Recipe
from thaw.run_folder import RunFolder

_IN_OPENVINO = """
import sys
import numpy as np
from thaw.openvino_runtime import openvino

model, images, probabilities = sys.argv[1:]
compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
np.save(probabilities, compiled(np.load(images))[0])
"""


@dataclass(frozen=True)
class Int8Starter:
    """A bundle, its int8 export, and images that did not calibrate it."""

    bundle: Path
    file: Path
    images: tuple[Path, ...]


def test_no_image_is_used_for_both_calibration_and_testing(trained: RunFolder, images: Path) -> None:
    dataset = Dataset.open(images)
    calibration, rest = split_for_calibration(load(trained.path), dataset)
    assert not set(calibration.files) & set(rest.files)
    assert len(calibration.files) == 12
    assert len(calibration.files) + len(rest.files) == len(dataset)
    classes = load(trained.path).classes
    for part in (calibration, rest):
        assert [classes[target] for target in part.targets] == [file.parent.name for file in part.files]


@pytest.mark.parametrize(
    ("to", "name", "share"),
    # OpenVINO describes every step of quantisation in XML, which counts in so small a network.
    [
        pytest.param("onnx", "model.onnx", 0.4, marks=[pytest.mark.slow, pytest.mark.ci]),
        pytest.param("openvino", "model", 0.9, marks=pytest.mark.slow),
    ],
)
def test_int8_is_much_smaller_and_reports_its_cost_and_the_fp32_graph_is_not_read_when_its_folder_is_removed(
    to: str, name: str, share: float, trained: RunFolder, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files_read: list[str] = []
    if sys.platform == "linux":
        maps = Path("/proc/self/maps")
        monkeypatch.setattr(
            "thaw.exports.export.check_accuracy_drop", lambda *_: files_read.append(maps.read_text("utf-8"))
        )
    folder = shutil.copytree(images, tmp_path / "images")
    damaged = [part.files[0] for part in split_for_calibration(load(trained.path), Dataset.open(folder))]
    for file in damaged:
        file.write_bytes(b"damaged")
    done = export_int8(trained.model, to, tmp_path / name, folder, max_drop=100.0)
    assert not any("fp32-export" in text for text in files_read)
    assert done.quantisation is not None
    before, after = done.quantisation.before, done.quantisation.after
    assert after.size < share * before.size
    assert done.size == after.size
    assert (done.quantisation.calibration_images, done.quantisation.test_images) == (11, 23)
    assert list(done.unreadable) == damaged and "not a JPEG" in done.unreadable[damaged[0]]
    assert before.latency_ms > 0.0 < after.latency_ms
    assert sorted(tmp_path.iterdir()) == sorted([folder, tmp_path / name])


@pytest.mark.slow
@pytest.mark.ci
def test_int8_of_a_head_on_all_stages_predicts_as_fp32_does(images: Path, quick: Recipe, tmp_path: Path) -> None:
    recipe = quick.with_settings({"head.features": "all", "head.dropout": 0.0})
    recipe = recipe.model_copy(update={"phases": quick.phases[:1]})
    finetune(Dataset.open(images), recipe, tmp_path / "runs", reporter=NullReporter())
    bundle = RunFolder(tmp_path / "runs" / "train-1").model
    done = export_int8(bundle, "onnx", tmp_path / "model.onnx", images, max_drop=100.0)
    assert done.quantisation is not None
    assert done.quantisation.after.size < 0.7 * done.quantisation.before.size
    assert done.quantisation.accuracy_drop <= 10.0


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Int8Starter:
    """Thaw's starter with a head for surfaces, exported to int8."""
    place = tmp_path_factory.mktemp("starter")
    write_surfaces(place / "surfaces", images_per_class=30, size=96, classes=("ok", "scratch", "stain"))
    dataset = Dataset.open(place / "surfaces")
    head_only = Phase(name="head", cut="head", epochs=2, lr=1e-2)
    recipe = Recipe(
        backbone="starter",
        views=1,
        engine="pytorch-fp32",
        precision="fp32",
        preprocessing=PreprocessingSettings(image_size=96),
        phases=(head_only,),
    )
    finetune(dataset, recipe, place / "runs", reporter=NullReporter())
    bundle = RunFolder(place / "runs" / "train-1").model
    export_int8(bundle, "onnx", place / "int8.onnx", place / "surfaces", max_drop=100.0)
    _, test = split_for_calibration(load(bundle), dataset)
    return Int8Starter(bundle, place / "int8.onnx", test.files)


@pytest.mark.slow
def test_a_network_of_depthwise_convolutions_with_real_weights_keeps_its_probabilities(
    starter: Int8Starter, tmp_path: Path
) -> None:
    export_bundle(starter.bundle, "onnx", tmp_path / "fp32.onnx")
    fp32, int8 = (onnx_target.load(file) for file in (tmp_path / "fp32.onnx", starter.file))
    pixels = [np.asarray(Image.open(file).convert("RGB"))[None] for file in starter.images]
    differences = [np.abs(fp32(image) - int8(image)).mean() for image in pixels]
    # 0.017; with each weight rounded to the nearest and the head as it was, 0.123.
    assert np.mean(differences) < 0.04


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other CPUs have other instructions")
def test_int8_gives_the_same_probabilities_on_cpus_without_vnni(starter: Int8Starter, tmp_path: Path) -> None:
    """OpenVINO is told to use older instructions, which add two products in 16 bits."""
    images = [np.asarray(Image.open(file).convert("RGB")) for file in starter.images[:8]]
    np.save(tmp_path / "images.npy", np.stack(images))
    found = []
    for instructions in ("AVX2", "AVX512_CORE_AMX"):
        arguments = [starter.file, tmp_path / "images.npy", tmp_path / "probabilities.npy"]
        environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
        subprocess.run([sys.executable, "-c", _IN_OPENVINO, *map(str, arguments)], env=environment, check=True)
        found.append(np.load(tmp_path / "probabilities.npy"))
    # Resizing and the head are in floating point.
    assert np.abs(found[0] - found[1]).max() < 1e-5


def test_a_drop_in_accuracy_is_accepted_up_to_the_limit() -> None:
    before, after = Quality(8, 2.0, 0.95, 100), Quality(2, 1.0, 0.93, 100)
    worse, better = Quantisation(before, after, 100), Quantisation(after, before, 100)
    assert worse.accuracy_drop == pytest.approx(2.0) and better.accuracy_drop == pytest.approx(-2.0)
    check_accuracy_drop(worse, max_drop=2.5)
    check_accuracy_drop(better, max_drop=0.0)
    with pytest.raises(ExportError, match=r"2\.0 points on 100 images, from 95\.0% to 93\.0%"):
        check_accuracy_drop(worse, max_drop=1.9)
    for quantisation in (worse, better):
        with pytest.raises(ExportError, match="more than --max-drop nan"):
            check_accuracy_drop(quantisation, max_drop=math.nan)


def test_a_limit_on_the_drop_in_accuracy_is_not_ignored_where_nothing_is_quantised(
    trained: RunFolder, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="export --max-drop 3: is for int8; omit it, or add --int8 --images FOLDER"):
        pipeline.export(trained.path, "torch", tmp_path / "model.pt2", max_drop=3)


def test_unreadable_images_are_not_among_those_that_an_export_was_measured_on(
    trained: RunFolder, images: Path, tmp_path: Path
) -> None:
    classifier = load(trained.path)
    _, test = split_for_calibration(classifier, Dataset.open(shutil.copytree(images, tmp_path / "images")))
    for file in test.files[:3]:
        file.write_bytes(b"damaged")

    def infer(batch: np.ndarray) -> np.ndarray:
        return np.full((len(batch), len(classifier.classes)), 1 / len(classifier.classes), np.float32)

    assert measure_quality(infer, 8, classifier, test).images == 21
    assert list(test.unreadable) == list(test.files[:3])


def test_the_accuracy_of_an_export_is_by_the_decision_of_the_classifier(trained: RunFolder, images: Path) -> None:
    classifier, files = load(trained.path), tuple(sorted(images.rglob("*.png"))[:4])
    scratch = classifier.classes.index("scratch")
    classifier.decision = Decision(((scratch, 0.15),))
    probabilities = np.full((1, 3), 0.6, np.float32)
    probabilities[:, scratch] = 0.2
    quality = measure_quality(lambda _: probabilities, 8, classifier, LabelledFiles(files, np.full(4, scratch)))
    assert quality.accuracy == 1.0


@pytest.mark.slow
def test_int8_beyond_the_accuracy_limit_is_refused_and_nothing_is_left(
    trained: RunFolder, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=r"lowers accuracy by .* more than --max-drop -100"):
        export_int8(trained.model, "onnx", tmp_path / "model.onnx", images, max_drop=-100.0)
    assert list(tmp_path.iterdir()) == []


def test_int8_is_refused_for_unsupported_targets_and_too_few_images(
    trained: RunFolder, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="int8 is for onnx, openvino, triton"):
        export_int8(trained.model, "torch", tmp_path / "model.pt2", images)
    with pytest.raises(ExportError, match="--to keras --int8: int8 is for onnx"):
        export_int8(trained.model, "keras", tmp_path / "model.keras", images)
    for file in sorted(images.rglob("*.png"))[::2]:
        place = tmp_path / "few" / file.parent.name / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.read_bytes())
    with pytest.raises(ExportError, match="at least 30"):
        export_int8(trained.model, "onnx", tmp_path / "model.onnx", tmp_path / "few")


def test_the_command_says_that_the_certificate_is_that_of_the_fp32_graph(
    trained: RunFolder, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quality = Quality(2, 1.0, 0.93, 24)
    unreadable = {tmp_path / f"{number}.png": "the file is empty" for number in range(4)}
    done = Exported(
        tmp_path / "m.onnx", 2, Certificate(11, 1e-7), "hint", Quantisation(quality, quality, 12), unreadable
    )
    monkeypatch.setattr(pipeline, "export", lambda *_: done)
    words = ["export", str(trained.path), "--to", "onnx", "--out", str(done.path), "--int8", "--images", str(images)]
    lines = CliRunner().invoke(app, words).output.splitlines()
    assert lines[1].startswith("the fp32 graph that it was quantised from is certified on 11 images")
    assert lines[2] == "int8: calibrated on 12 images, compared on 24 images of their own"
    assert lines[3].startswith(f"4 labelled images cannot be read, excluded: {tmp_path / '0.png'}: the file is empty, ")
    assert lines[3].endswith(" and 1 more")


def test_the_command_requires_images_with_int8(trained: RunFolder, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["export", str(trained.path), "--to", "onnx", "--out", str(tmp_path / "m.onnx"), "--int8"]
    )
    assert isinstance(result.exception, ExportError)
    assert "--images" in str(result.exception)
