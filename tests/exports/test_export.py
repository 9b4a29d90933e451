"""A bundle is exported to one file or folder that reproduces Thaw's probabilities, or not at all."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import thaw
from tests.exports.classifiers import CLASSES, random_classifier
from tests.exports.tracing import traced_once
from tests.full_disk import files_of_at_most
from thaw.bundle import read_bundle, write_bundle
from thaw.classifier.decision import Decision
from thaw.cli import app
from thaw.errors import ExportError, WriteError
from thaw.exports import export, onnx_target, triton_target
from thaw.exports.certificate import Case, certify, reference_cases
from thaw.exports.deployment import Deployment, deployment_of
from thaw.exports.export import TARGETS, Exported, export_bundle
from thaw.exports.target import TOLERANCE

PLACES = {"onnx": "model.onnx", "openvino": "flowers", "torch": "model.pt2", "triton": "flowers"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with three golden images, the first a photograph that Thaw decodes at reduced size."""
    folder = tmp_path_factory.mktemp("bundle")
    generator = np.random.default_rng(1)
    files = []
    for number, (height, width, ending) in enumerate(((700, 900, "jpg"), (90, 70, "png"), (40, 200, "png"))):
        coarse = Image.fromarray(generator.integers(0, 256, (6, 7, 3), dtype=np.uint8))
        files.append(folder / f"{number}.{ending}")
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(files[-1])
    write_bundle(random_classifier(), folder / "model", golden=files)
    return folder / "model"


@pytest.fixture(scope="module", autouse=True)
def one_trace() -> Iterator[None]:
    with traced_once():
        yield


@pytest.fixture(scope="module")
def make(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Exports the bundle to a target, once."""
    return cache(lambda to: export_bundle(bundle, to, tmp_path_factory.mktemp("out") / PLACES[to]))


@pytest.fixture(params=PLACES)
def exported(request: pytest.FixtureRequest, make: Callable[[str], Exported]) -> tuple[str, Exported]:
    return request.param, make(request.param)


@pytest.fixture
def onnx_file(make: Callable[[str], Exported]) -> Path:
    return make("onnx").path


@pytest.fixture(scope="module")
def cases(bundle: Path) -> list[Case]:
    return reference_cases(read_bundle(bundle), bundle)


def test_an_export_reproduces_thaws_probabilities_in_batches_of_any_size(
    exported: tuple[str, Exported], bundle: Path, cases: list[Case]
) -> None:
    to, done = exported
    assert done.certificate.images == len(cases) > 3
    assert done.certificate.max_difference <= TOLERANCE
    infer = TARGETS[to].load(done.path)
    files = sorted((bundle / "golden").glob("*.png"))
    for file, prediction in zip(files, thaw.predict(read_bundle(bundle), files), strict=True):
        images = np.stack([np.asarray(Image.open(file))] * 5)
        assert np.abs(infer(images) - prediction.probabilities).max() <= TOLERANCE
    given = {tuple(np.round(case.expected, 2)) for case in cases}
    assert len(given) > len(cases) // 2, "the probabilities must differ between images, or nothing is certified"


def test_an_export_is_one_file_or_one_model_folder(exported: tuple[str, Exported]) -> None:
    to, done = exported
    assert list(done.path.parent.iterdir()) == [done.path]
    files = {str(file.relative_to(done.path)) for file in done.path.rglob("*") if file.is_file()}
    assert (
        files
        == {
            "onnx": set(),
            "torch": set(),
            "openvino": {"THAW.TAG", "1/model.xml", "1/model.bin"},
            "triton": {"THAW.TAG", "config.pbtxt", "labels.txt", "1/model.onnx"},
        }[to]
    )
    assert done.size == sum(file.stat().st_size for file in [done.path, *done.path.rglob("*")] if file.is_file())


def test_an_export_contains_its_metadata(exported: tuple[str, Exported], bundle: Path) -> None:
    to, done = exported
    metadata = _metadata(to, done.path)
    assert json.loads(metadata["classes"]) == list(CLASSES)
    assert metadata["architecture"] == read_bundle(bundle).backbone.facts.architecture
    assert metadata["task"] == "multiclass"
    assert json.loads(metadata["preprocessing"])["size"] == 64
    assert len(metadata["bundle_sha256"]) == 64


def _metadata(to: str, path: Path) -> dict[str, str]:
    if to == "torch":
        extra = {"thaw.json": ""}
        torch.export.load(path, extra_files=extra)
        return json.loads(extra["thaw.json"])
    if to == "openvino":
        import openvino

        model = openvino.Core().read_model(path / "1/model.xml")
        keys = ("classes", "architecture", "task", "preprocessing", "bundle_sha256")
        return {key: model.get_rt_info(["thaw", key]).value for key in keys}
    file = path if to == "onnx" else path / "1" / "model.onnx"
    return {item.key: item.value for item in onnx.load(file).metadata_props}


def test_an_onnx_file_reveals_nothing_about_the_machine_that_wrote_it(onnx_file: Path) -> None:
    content = onnx_file.read_bytes()
    assert str(Path(export.__file__).parents[2]).encode() not in content
    assert b".py" not in content


def test_the_triton_config_has_name_types_shapes_and_labels(make: Callable[[str], Exported]) -> None:
    done = make("triton")
    config = (done.path / "config.pbtxt").read_text()
    for line in ('name: "flowers"', "dims: [ -1, -1, 3 ]", "TYPE_UINT8", "dims: [ 3 ]", "dynamic_batching"):
        assert line in config
    assert (done.path / "labels.txt").read_text().splitlines() == list(CLASSES)


@pytest.mark.parametrize("name", ["a\nb", "a\r", "a\u2028b"])
def test_a_class_on_two_lines_is_not_exported_to_triton(name: str, onnx_file: Path, tmp_path: Path) -> None:
    deployment = Deployment(cast(Any, None), ("ok", name, "scratch"), {})
    with pytest.raises(ExportError, match=r"has a line break, but labels\.txt has a line per class"):
        triton_target.package(deployment, onnx_file, tmp_path / "model", "model")


def test_changed_weights_are_detected_and_nothing_is_left(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_altered(deployment: Deployment, place: Path, name: str) -> None:
        weight = next(value for key, value in deployment.program.state_dict.items() if key.endswith("conv_stem.weight"))
        weight.data.mul_(1.05)
        TARGETS["torch"].write(deployment, place, name)

    altered = replace(TARGETS["torch"], write=write_altered)
    # A graph of its own, which shares its weights with the classifier that is exported.
    monkeypatch.setattr(export, "deployment_of", deployment_of)
    monkeypatch.setattr(export, "TARGETS", {**TARGETS, "torch": altered})
    with pytest.raises(ExportError, match="differs by"):
        export_bundle(bundle, "torch", tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_modified_graph_is_not_certified(onnx_file: Path, cases: list[Case], tmp_path: Path) -> None:
    model = onnx.load(onnx_file)
    last = next(node for node in reversed(model.graph.node) if node.op_type in ("Gemm", "MatMul"))
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == last.input[1])
    rolled = np.roll(onnx.numpy_helper.to_array(weights), 1, axis=0)
    weights.CopyFrom(onnx.numpy_helper.from_array(rolled.copy(), weights.name))
    onnx.save(model, tmp_path / "tampered.onnx")
    with pytest.raises(ExportError, match="differs by"):
        certify(onnx_target.load(tmp_path / "tampered.onnx"), cases)


@pytest.mark.parametrize("mistake", ["channels", "classes", "size", "nan"])
def test_the_certificate_detects_common_mistakes_of_servers(mistake: str, onnx_file: Path, cases: list[Case]) -> None:
    infer = onnx_target.load(onnx_file)

    def wrong(images: np.ndarray) -> np.ndarray:
        if mistake == "channels":
            return infer(np.ascontiguousarray(images[..., ::-1]))
        if mistake == "size":
            return infer(np.ascontiguousarray(images[:, ::2, ::2]))
        return infer(images)[:, ::-1] if mistake == "classes" else infer(images) * np.float32("nan")

    certify(infer, cases)
    with pytest.raises(ExportError, match="differs by"):
        certify(wrong, cases)


def test_existing_files_are_not_overwritten(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("mine")
    with pytest.raises(WriteError, match="already exists"):
        export_bundle(bundle, "onnx", tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_text() == "mine"


def test_only_openvino_may_differ_by_a_pixel_level_and_never_in_the_label() -> None:
    assert {to: target.tolerance for to, target in TARGETS.items() if target.tolerance != TOLERANCE} == {
        "openvino": 0.01
    }
    clear, near = (
        Case(name, np.zeros((4, 4, 3), np.uint8), np.array([top, 1 - top], np.float32))
        for name, top in (("clear", 0.9), ("near", 0.501))
    )

    def moved(case: Case, by: float) -> Callable[[np.ndarray], np.ndarray]:
        return lambda images: np.stack([case.expected + np.array([-by, by], np.float32)] * len(images))

    def labels(probabilities: np.ndarray) -> np.ndarray:
        return Decision().labels(probabilities, "multiclass")

    assert certify(moved(clear, 0.005), [clear], 0.01, labels).max_difference == pytest.approx(0.005, abs=1e-5)
    with pytest.raises(
        ExportError, match=r"clear: .* differs by 0\.02 .* more than 0\.01; it was discarded; likely rain"
    ):
        certify(moved(clear, 0.02), [clear], 0.01, labels, "rain")
    with pytest.raises(ExportError, match=r"near: the label of the export differs from Thaw's, .* by 0\.005"):
        certify(moved(near, 0.005), [near], 0.01, labels)


@pytest.mark.parametrize(
    ("to", "out", "complaint"),
    [
        ("coreml", "model", "known are onnx, openvino, torch, keras, triton"),
        ("onnx", "model", r"ends in \.onnx"),
        ("torch", "model.pt", r"ends in \.pt2"),
        ("keras", "model.h5", r"ends in \.keras"),
        ("triton", "my model", "letters"),
    ],
)
def test_an_unknown_target_or_invalid_name_is_refused_before_anything_is_done(
    to: str, out: str, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=complaint):
        export_bundle(tmp_path / "no bundle", to, tmp_path / out)


def test_a_missing_package_is_an_error_with_the_install_command(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ExportError, match=r'onnxscript: pip install "thaw-vision\[onnx\]"'):
        export_bundle(bundle, "triton", tmp_path / "model")


def test_the_command_writes_and_reports_the_certificate(bundle: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(bundle), "--to", "torch", "--out", str(tmp_path / "model.pt2")])
    assert result.exit_code == 0, result.output
    assert "certified on 11 images" in result.output and "decision" not in result.output
    assert (tmp_path / "model.pt2").is_file()


def test_the_command_says_that_labels_follow_from_a_decision_that_is_not_the_default_one(
    bundle: Path, tmp_path: Path
) -> None:
    classifier, decided, out = read_bundle(bundle), tmp_path / "decided", tmp_path / "model.pt2"
    classifier.decision = Decision(((1, 0.03),), reason="recall of scratch at least 0.99")
    write_bundle(classifier, decided, golden=sorted((bundle / "golden").glob("*.png")))
    result = CliRunner().invoke(app, ["export", str(decided), "--to", "torch", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "decision: recall of scratch at least 0.99; labels are not always the most likely class" in result.output
    assert json.loads(_metadata("torch", out)["decision"]) == classifier.decision.to_json()


@pytest.mark.slow
@pytest.mark.parametrize("to", PLACES)
def test_a_full_disk_is_one_sentence_and_leaves_nothing(to: str, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / PLACES[to]
    sentence = "cannot be written: the file is larger"
    with files_of_at_most(100_000), pytest.raises(WriteError, match=sentence):
        export_bundle(bundle, to, out)
    assert list(tmp_path.iterdir()) == []
