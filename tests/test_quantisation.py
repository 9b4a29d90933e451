"""A network in int8 is written once, and a classifier that is trained on it runs on the same integers everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.cli.running import thaw as command
from tests.features.test_int8 import precisions_of_convolutions
from thaw.backbones import build
from thaw.data.surfaces import write_surfaces
from thaw.errors import ExportError, RecipeError, WriteError
from thaw.evaluation.records import read_records
from thaw.exports.export import export_bundle, export_int8
from thaw.openvino_runtime import openvino
from thaw.pipeline import cross_validate, explain, finetune, load, predict, quantise, search, update
from thaw.progress import NullReporter
from thaw.quantisation import Quantised
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder
from thaw.tuning.limits import Limits

SIZE = {"preprocessing.image_size": 64}


@pytest.fixture(scope="module")
def weights(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("int8") / "starter-int8.safetensors"
    found = quantise(images, file, Recipe(backbone="starter").with_settings(SIZE), NullReporter())
    assert found.calibrated == 26 and found.gain is not None
    assert found.after.engine == "openvino-fp32" and found.after.images_per_second > 0
    assert found.before.correct is not None and len(found.before.correct) == 26
    return file


@pytest.fixture(scope="module")
def recipe(weights: Path) -> Recipe:
    return Recipe(backbone="starter", weights=str(weights))


@pytest.fixture(scope="module")
def run(images: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    runs = tmp_path_factory.mktemp("runs")
    finetune(images, recipe, runs, reporter=NullReporter())
    return RunFolder(runs / "train-1")


def test_only_the_head_trains_and_the_plan_says_why(run: RunFolder, weights: Path) -> None:
    plan = run.read_plan()
    assert plan is not None
    reasons = {choice.setting: (choice.value, choice.reason) for choice in plan.choices}
    assert reasons["strategy"] == ("head", "the weights are in int8, so only the head can train")
    assert reasons["engine"][0] == "openvino-fp32" and "in int8" in reasons["engine"][1]
    (phase,) = run.read_recipe().phases
    assert phase.cut == "head"
    frozen, shipped = load_file(weights), load_file(run.model / "model.safetensors")
    for name, tensor in frozen.items():
        assert torch.equal(shipped[name], tensor), name


def test_what_was_validated_is_what_the_bundle_predicts(run: RunFolder, images: Path) -> None:
    """Validation read cached features, which are in half precision; prediction begins at the files."""
    records = read_records(run.predictions, "val")
    found = {str(prediction.path): prediction for prediction in predict(run.model, sorted(images.rglob("*.png")))}
    of_files = [found[str(images / path)].probabilities for path in records.paths]
    np.testing.assert_allclose(np.array(of_files), records.scored.probabilities, atol=1e-3)


def test_the_bundle_says_that_it_is_in_int8_and_earlier_releases_refuse_it(run: RunFolder) -> None:
    own = json.loads((run.model / "config.json").read_bytes())["thaw"]
    # What earlier releases read before the format is what they know.
    assert own["int8"] is True and own["format"] == 3 and "int8" not in own["facts"]


def test_the_weights_of_a_bundle_can_be_trained_on_again(run: RunFolder) -> None:
    again = build(Recipe(backbone="starter", weights=str(run.model / "model.safetensors")))
    assert again.facts.int8
    assert again.digest(again.head_position) == load(run.path).backbone.digest(again.head_position)


def test_it_explains_cross_validates_and_learns_new_images(run: RunFolder, images: Path, tmp_path: Path) -> None:
    image = next(images.rglob("*.png"))
    (overlay,) = explain(run.path, [image], tmp_path / "explained")
    assert overlay.output is not None and overlay.output.stat().st_size > 0
    assert cross_validate(run.path, 2, 1, reporter=NullReporter()).folds == 2
    write_surfaces(tmp_path / "new", images_per_class=6, size=64, classes=("crack",))
    updated = update(run.path, tmp_path / "new", tmp_path / "runs", NullReporter())
    assert updated.backbone.facts.int8


def test_what_cannot_be_done_in_int8_is_one_sentence(
    run: RunFolder, recipe: Recipe, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match="strategy top: the weights are in int8, so only the head can train"):
        finetune(images, recipe.with_settings({"strategy": "top"}), tmp_path, reporter=NullReporter())
    with pytest.raises(RecipeError, match="stages:2: the weights are in int8"):
        named = recipe.with_settings({"phases.1.cut": "stages:2"})
        finetune(images, named, tmp_path, reporter=NullReporter())
    with pytest.raises(RecipeError, match=r"starter-int8.safetensors: is in int8, .* a search has no stages to thaw"):
        # Nothing is decoded or planned for it.
        monkeypatch.setattr("thaw.tuning.begin.plan_trial", None)
        search(images, recipe, {}, tmp_path, Limits(60.0, 5), reporter=NullReporter())
    with pytest.raises(RecipeError, match="a search has no stages to thaw"):
        among = Recipe(backbone="auto", candidates={"starter": recipe.weights})
        search(images, among, {}, tmp_path, Limits(60.0, 5), reporter=NullReporter())
    with pytest.raises(RecipeError, match="pytorch-fp32 cannot run weights in int8; openvino-fp32 can"):
        finetune(images, recipe.with_settings({"engine": "pytorch-fp32"}), tmp_path, reporter=NullReporter())
    with pytest.raises(ExportError, match="trained on weights in int8; export to onnx, openvino, torch, triton"):
        export_bundle(run.model, "keras", tmp_path / "model.keras")
    with pytest.raises(ExportError, match="trained on weights in int8"):
        export_bundle(run.model, "litert", tmp_path / "model.tflite")
    with pytest.raises(ExportError, match="omit --int8"):
        export_int8(run.model, "onnx", tmp_path / "model.onnx", images)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_exports_run_the_same_integers(run: RunFolder, tmp_path: Path) -> None:
    from onnx import load as load_onnx

    exported = export_bundle(run.model, "onnx", tmp_path / "model.onnx")
    kinds = [node.op_type for node in load_onnx(str(exported.path)).graph.node]
    assert kinds.count("QuantizeLinear") == 2 * kinds.count("Conv") > 0
    place = export_bundle(run.model, "openvino", tmp_path / "model").path
    compiled = openvino.Core().compile_model(place / "1" / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert precisions_of_convolutions(compiled) <= {"u8", "i8"}
    assert export_bundle(run.model, "torch", tmp_path / "model.pt2").certificate.max_difference > 0


@pytest.mark.parametrize(
    ("speedup", "advice"),
    [
        (1.5, "thaw train DATA --backbone starter --weights int8.safetensors"),
        (0.9, "it is not faster here: train with the weights in float"),
    ],
)
def test_the_command_tells_speed_and_accuracy_and_overwrites_nothing(
    speedup: float,
    advice: str,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Which is faster depends on what else runs on this machine.
    monkeypatch.setattr(Quantised, "speedup", speedup)
    monkeypatch.chdir(tmp_path)
    arguments = ["quantise", images, "--backbone", "starter", "--image-size", 64, "--out", "int8.safetensors"]
    assert command(monkeypatch, *arguments) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "images/s instead of" in said and "a linear head reaches" in said
    assert advice in said
    content = Path("int8.safetensors").read_bytes()
    assert command(monkeypatch, *arguments) == 2
    assert (
        "int8.safetensors: already exists" in capsys.readouterr().err
        and content == Path("int8.safetensors").read_bytes()
    )
    twice = ["--weights", "int8.safetensors", "--out", "twice.safetensors"]
    assert command(monkeypatch, *arguments[:4], *twice) == 2
    assert "in int8 already" in capsys.readouterr().err and not Path("twice.safetensors").exists()
    with pytest.raises(WriteError, match="give the file that suffix"):
        quantise(images, tmp_path / "int8.onnx", Recipe(backbone="starter"), NullReporter())
    with pytest.raises(RecipeError, match="name the network"):
        quantise(images, tmp_path / "auto.safetensors", Recipe(backbone="auto"), NullReporter())
