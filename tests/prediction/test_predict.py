import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import thaw
from thaw.backbones.timm_backbone import build
from thaw.classifier.classifier import Classifier, new_head
from thaw.data.decoding import Decoding
from thaw.data.manifest import Manifest, new_table
from thaw.data.pixel_store import PixelStore
from thaw.data.surfaces import write_surfaces
from thaw.errors import RecipeError
from thaw.features import probe
from thaw.features.probe import EngineChoice
from thaw.pipeline import load
from thaw.prediction import predict, predictor
from thaw.prediction.predict import predict_files, read_files, view_of
from thaw.prediction.predictor import (
    BATCH,
    MAX_DIFFERENCE,
    MIN_IMAGES_TO_PROBE,
    Predictor,
    choose_predictor,
    max_difference,
)
from thaw.recipe import DecodeSettings, Engine, PreprocessingSettings
from thaw.run_folder import RunFolder

CPU = torch.device("cpu")
EXACT: tuple[Engine, ...] = ("pytorch-fp32", "openvino-fp32")
MANY = 10_000_000


@pytest.fixture(scope="module")
def classifier(trained: RunFolder) -> Classifier:
    return load(trained.path)


@pytest.fixture(scope="module")
def pixels(classifier: Classifier, images: Path) -> np.ndarray:
    (batch,) = read_files(classifier, sorted(images.rglob("*.png"))[: BATCH - 1], BATCH)
    return batch.pixels


def plain(classifier: Classifier) -> Predictor:
    return Predictor(classifier, "pytorch-fp32", CPU)


@pytest.mark.parametrize("engine", EXACT)
@pytest.mark.parametrize("count", [1, 3, 5])
def test_an_exact_engine_gives_the_probabilities_of_the_classifier(
    engine: Engine, count: int, classifier: Classifier, pixels: np.ndarray
) -> None:
    with torch.inference_mode():
        expected = classifier.probabilities(classifier.logits(torch.from_numpy(pixels[:count]))).numpy()
    given = Predictor(classifier, engine, CPU).probabilities(pixels[:count])
    assert given.shape == (count, 3) and given.dtype == np.float32
    assert np.abs(given - expected).max() < 1e-5


@pytest.mark.slow
def test_a_compiled_engine_pads_the_last_batch_to_one_shape(classifier: Classifier, pixels: np.ndarray) -> None:
    compiled, exact = (Predictor(classifier, engine, CPU) for engine in ("compiled-fp32", "pytorch-fp32"))
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for count in (BATCH - 1, 5, 1):
            assert max_difference(compiled, exact, pixels[:count]) < 1e-4


def test_an_engine_that_cannot_run_here_is_refused(classifier: Classifier) -> None:
    with pytest.raises(RecipeError, match="openvino-bf16 runs on the CPU only"):
        Predictor(classifier, "openvino-bf16", torch.device("cuda"))


def test_a_requested_engine_that_fails_is_refused_in_one_sentence(
    classifier: Classifier, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(predictor: Predictor, engine: Engine) -> Predictor:
        raise RuntimeError("no C++ compiler\n100 lines")

    monkeypatch.setattr(Predictor, "with_engine", fails)
    with pytest.raises(
        RecipeError, match=r"^engine: compiled-fp32 fails here \(Run.*r: no C\+\+ compiler\); use auto$"
    ):
        choose_predictor(plain(classifier), "compiled-fp32", pixels, 3, tmp_path)


def test_for_few_images_no_engine_is_timed(classifier: Classifier, pixels: np.ndarray, tmp_path: Path) -> None:
    chosen = choose_predictor(plain(classifier), "auto", pixels, MIN_IMAGES_TO_PROBE - 1, tmp_path)
    assert chosen.predictor.engine == "pytorch-fp32" and f"from {MIN_IMAGES_TO_PROBE}" in chosen.reason
    assert not list(tmp_path.iterdir())


def test_for_many_images_the_fastest_engine_is_timed_once_and_remembered(
    classifier: Classifier, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "BUSY", float("inf"))
    first = choose_predictor(plain(classifier), "auto", pixels, MANY, tmp_path)
    again = choose_predictor(plain(classifier), "auto", pixels, MANY, tmp_path)
    assert first.reason.count("/s") >= 3 and "remembered" not in first.reason
    assert again.reason.startswith("remembered") and again.predictor.engine == first.predictor.engine
    assert max_difference(first.predictor, plain(classifier), pixels) <= MAX_DIFFERENCE


def test_a_requested_engine_is_used(classifier: Classifier, pixels: np.ndarray, tmp_path: Path) -> None:
    for engine in EXACT:
        chosen = choose_predictor(plain(classifier), engine, pixels, 3, tmp_path)
        assert chosen.predictor.engine == engine and chosen.reason.startswith("as requested")


@pytest.mark.parametrize("gap", [MAX_DIFFERENCE * 1.01, float("nan")])
def test_an_inaccurate_engine_is_replaced_by_its_fp32_variant_and_then_by_pytorch(
    gap: float, classifier: Classifier, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = EngineChoice("openvino-bf16", "fast", 1000.0)
    monkeypatch.setattr(predictor, "choose_engine", lambda *_: found)
    wrong = {"openvino-bf16"}
    original = Predictor.probabilities

    def inaccurate(self: Predictor, pixels: np.ndarray) -> np.ndarray:
        return original(self, pixels) + np.float32(gap if self.engine in wrong else 0.0)

    monkeypatch.setattr(Predictor, "probabilities", inaccurate)
    variant = choose_predictor(plain(classifier), "auto", pixels, MANY, tmp_path)
    assert variant.predictor.engine == "openvino-fp32" and "openvino-bf16 is not used" in variant.reason
    wrong.add("openvino-fp32")
    exact = choose_predictor(plain(classifier), "openvino-bf16", pixels, MANY, tmp_path)
    assert exact.predictor.engine == "pytorch-fp32" and exact.reason.count("is not used") == 2


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_predictions_do_not_depend_on_the_batch_size(
    batch_size: int, classifier: Classifier, images: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"")
    files = [damaged, *sorted(images.rglob("*.png"))[:9], tmp_path / "absent.png"]
    rows, expected = list(predict_files(classifier, files, batch_size)), list(predict_files(classifier, files))
    assert [row.path for row in rows] == files
    assert [row.status for row in rows] == ["error", *["ok"] * 9, "error"]
    for row, other in zip(rows, expected, strict=True):
        assert (row.label, row.reason) == (other.label, other.reason)
        assert row.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_files_are_classified_by_the_given_predictor(classifier: Classifier, images: Path) -> None:
    files = sorted(images.rglob("*.png"))[:7]
    fast = list(predict_files(classifier, files, 4, Predictor(classifier, "openvino-fp32", CPU)))
    for row, other in zip(fast, thaw.predict(classifier, files), strict=True):
        assert row.probabilities == pytest.approx(other.probabilities, abs=1e-5)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_prediction_reads_the_pixels_that_were_trained_and_validated_on_with_every_geometry(
    crop_mode: str, interpolation: str, tmp_path: Path
) -> None:
    geometry = {"image_size": 32, "crop_pct": 0.8, "crop_mode": crop_mode, "interpolation": interpolation}
    backbone = build("mobilenetv3_small_050", "random", PreprocessingSettings.model_validate(geometry))
    classifier = Classifier(backbone, new_head(backbone, 3, dropout=0.0), "abc", "multiclass", DecodeSettings())
    files = [tmp_path / "wide.png", tmp_path / "wide.jpg", tmp_path / "high.png", tmp_path / "high.jpg"]
    draws, sizes = np.random.default_rng(0), [(70, 90), (120, 200), (90, 70), (200, 120)]
    for file, size in zip(files, sizes, strict=True):
        Image.fromarray(draws.integers(0, 256, (*size, 3), dtype=np.uint8)).save(file)

    manifest = Manifest(new_table([file.name for file in files], [["a"]] * 4), ("a", "b", "c"), "multiclass", tmp_path)
    decoding = Decoding(backbone.facts.pixels, classifier.decode, workers=2)
    store = PixelStore.open_or_build(manifest, decoding, tmp_path / "cache")
    expected = np.stack([store.plain(row) for row in range(4)])
    (batch,) = read_files(classifier, files, 4)
    assert np.array_equal(batch.pixels, expected)
    assert np.array_equal(np.stack([view_of(classifier, file.read_bytes()) for file in files]), expected)


def test_files_are_read_only_a_few_batches_ahead_and_pixels_are_released(classifier: Classifier, images: Path) -> None:
    job, (one, *_) = 0, sorted(images.rglob("*.png"))

    def files() -> Iterator[Path]:
        nonlocal job
        for _ in range(1000):
            job += 1
            yield one

    alive: list[weakref.ref[np.ndarray]] = []
    batches = read_files(classifier, files(), 4)
    for number, batch in enumerate(batches, 1):
        assert job <= 4 * (number + predict.READ_AHEAD)
        alive.append(weakref.ref(batch.pixels))
        if number == 20:
            break
    batches.close()
    del batch
    gc.collect()
    assert not [reference for reference in alive if reference() is not None]


def test_stopping_early_leaves_no_thread_behind(classifier: Classifier, tmp_path: Path) -> None:
    write_surfaces(tmp_path, images_per_class=8, size=64, classes=("ok",))
    before = threading.active_count()
    rows = predict_files(classifier, sorted(tmp_path.rglob("*.png")) * 20, 4)
    next(rows)
    rows.close()
    assert threading.active_count() <= before
