"""An int8 export is kept only if it is accurate on images that did not calibrate it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from thaw.cli import app
from thaw.data.dataset import Dataset
from thaw.errors import ExportError
from thaw.exports.export import export_int8
from thaw.exports.quantise import Quality, Quantisation, check_accuracy_drop, split_for_calibration
from thaw.pipeline import finetune, load
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder


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
    ("to", "name"), [("onnx", "model.onnx"), pytest.param("openvino", "model", marks=pytest.mark.slow)]
)
def test_int8_is_much_smaller_and_reports_its_cost(
    to: str, name: str, trained: RunFolder, images: Path, tmp_path: Path
) -> None:
    done = export_int8(trained.model, to, tmp_path / name, images, max_drop=100.0)
    assert done.quantisation is not None
    before, after = done.quantisation.before, done.quantisation.after
    assert after.size < 0.7 * before.size
    assert done.size == after.size
    assert (done.quantisation.calibration_images, done.quantisation.test_images) == (12, 24)
    assert before.latency_ms > 0.0 < after.latency_ms
    assert list(tmp_path.iterdir()) == [tmp_path / name]


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


def test_a_drop_in_accuracy_is_accepted_up_to_the_limit() -> None:
    before, after = Quality(8, 2.0, 0.95), Quality(2, 1.0, 0.93)
    worse, better = Quantisation(before, after, 100, 100), Quantisation(after, before, 100, 100)
    assert worse.accuracy_drop == pytest.approx(2.0) and better.accuracy_drop == pytest.approx(-2.0)
    check_accuracy_drop(worse, max_drop=2.5)
    check_accuracy_drop(better, max_drop=0.0)
    with pytest.raises(ExportError, match=r"2\.0 points on 100 images, from 95\.0% to 93\.0%"):
        check_accuracy_drop(worse, max_drop=1.9)


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
    for file in sorted(images.rglob("*.png"))[::2]:
        place = tmp_path / "few" / file.parent.name / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.read_bytes())
    with pytest.raises(ExportError, match="at least 30"):
        export_int8(trained.model, "onnx", tmp_path / "model.onnx", tmp_path / "few")


def test_the_command_requires_images_with_int8(trained: RunFolder, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["export", str(trained.path), "--to", "onnx", "--out", str(tmp_path / "m.onnx"), "--int8"]
    )
    assert isinstance(result.exception, ExportError)
    assert "--images" in str(result.exception)
