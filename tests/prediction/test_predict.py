import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import thaw
from thaw.classifier.classifier import Classifier
from thaw.data.surfaces import write_surfaces
from thaw.errors import RecipeError
from thaw.features.probe import EngineChoice
from thaw.pipeline import load
from thaw.prediction import predict, predictor
from thaw.prediction.predict import predict_files, read_files
from thaw.prediction.predictor import BATCH, LARGEST_GAP, PLAIN_BELOW, Predictor, choose_predictor, gap_between
from thaw.recipe import Engine
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


@pytest.mark.parametrize("engine", EXACT)
@pytest.mark.parametrize("count", [1, 3, 5])
def test_an_exact_engine_gives_the_probabilities_of_the_classifier_itself(
    engine: Engine, count: int, classifier: Classifier, pixels: np.ndarray
) -> None:
    with torch.inference_mode():
        expected = classifier.probabilities(classifier.logits(torch.from_numpy(pixels[:count]))).numpy()
    given = Predictor(classifier, engine, CPU).probabilities(pixels[:count])
    assert given.shape == (count, 3) and given.dtype == np.float32
    assert np.abs(given - expected).max() < 1e-5


@pytest.mark.slow
def test_a_compiled_engine_sees_one_shape_whatever_is_left_for_the_last_batch(
    classifier: Classifier, pixels: np.ndarray
) -> None:
    compiled, plain = (Predictor(classifier, engine, CPU) for engine in ("compiled-fp32", "pytorch-fp32"))
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for count in (BATCH - 1, 5, 1):
            assert gap_between(compiled, plain, pixels[:count]) < 1e-4


def test_an_engine_that_cannot_run_here_is_refused_in_one_sentence(classifier: Classifier) -> None:
    with pytest.raises(RecipeError, match="openvino-bf16 runs on the CPU only"):
        Predictor(classifier, "openvino-bf16", torch.device("cuda"))


def test_a_few_images_are_not_worth_a_probe(classifier: Classifier, pixels: np.ndarray, tmp_path: Path) -> None:
    chosen = choose_predictor(classifier, "auto", CPU, pixels, PLAIN_BELOW - 1, tmp_path)
    assert chosen.predictor.engine == "pytorch-fp32" and f"from {PLAIN_BELOW}" in chosen.reason
    assert not list(tmp_path.iterdir())


def test_many_images_are_classified_by_the_engine_that_a_probe_finds_and_remembers(
    classifier: Classifier, pixels: np.ndarray, tmp_path: Path
) -> None:
    first = choose_predictor(classifier, "auto", CPU, pixels, MANY, tmp_path)
    again = choose_predictor(classifier, "auto", CPU, pixels, MANY, tmp_path)
    assert first.reason.count("/s") >= 3 and "remembered" not in first.reason
    assert again.reason.startswith("remembered") and again.predictor.engine == first.predictor.engine
    assert gap_between(first.predictor, Predictor(classifier, "pytorch-fp32", CPU), pixels) <= LARGEST_GAP


def test_an_engine_that_was_asked_for_is_taken(classifier: Classifier, pixels: np.ndarray, tmp_path: Path) -> None:
    for engine in EXACT:
        chosen = choose_predictor(classifier, engine, CPU, pixels, 3, tmp_path)
        assert chosen.predictor.engine == engine and chosen.reason.startswith("as asked")


@pytest.mark.parametrize("gap", [LARGEST_GAP * 1.01, float("nan")])
def test_an_engine_whose_probabilities_are_off_gives_way_to_its_exact_sibling_and_then_to_pytorch(
    gap: float, classifier: Classifier, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = EngineChoice("openvino-bf16", "fast", 1000.0)
    monkeypatch.setattr(predictor, "choose_engine", lambda *_: found)
    wrong = {"openvino-bf16"}
    whole = Predictor.probabilities

    def off(self: Predictor, pixels: np.ndarray) -> np.ndarray:
        return whole(self, pixels) + np.float32(gap if self.engine in wrong else 0.0)

    monkeypatch.setattr(Predictor, "probabilities", off)
    sibling = choose_predictor(classifier, "auto", CPU, pixels, MANY, tmp_path)
    assert sibling.predictor.engine == "openvino-fp32" and "openvino-bf16 is not used" in sibling.reason
    wrong.add("openvino-fp32")
    plain = choose_predictor(classifier, "openvino-bf16", CPU, pixels, MANY, tmp_path)
    assert plain.predictor.engine == "pytorch-fp32" and plain.reason.count("is not used") == 2


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_predictions_are_the_same_however_the_files_are_batched(
    batch_size: int, classifier: Classifier, images: Path, tmp_path: Path
) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"")
    files = [torn, *sorted(images.rglob("*.png"))[:9], tmp_path / "absent.png"]
    rows, expected = list(predict_files(classifier, files, batch_size)), list(predict_files(classifier, files))
    assert [row.path for row in rows] == files
    assert [row.status for row in rows] == ["error", *["ok"] * 9, "error"]
    for row, twin in zip(rows, expected, strict=True):
        assert (row.label, row.reason) == (twin.label, twin.reason)
        assert row.probabilities == pytest.approx(twin.probabilities, abs=1e-5)


def test_an_engine_classifies_the_files_that_it_is_given(classifier: Classifier, images: Path) -> None:
    files = sorted(images.rglob("*.png"))[:7]
    fast = list(predict_files(classifier, files, 4, Predictor(classifier, "openvino-fp32", CPU)))
    for row, twin in zip(fast, thaw.predict(classifier, files), strict=True):
        assert row.probabilities == pytest.approx(twin.probabilities, abs=1e-5)


def test_files_are_asked_for_only_a_few_batches_ahead_and_pixels_are_let_go(
    classifier: Classifier, images: Path
) -> None:
    job, (one, *_) = 0, sorted(images.rglob("*.png"))

    def files() -> Iterator[Path]:
        nonlocal job
        for _ in range(1000):
            job += 1
            yield one

    alive: list[weakref.ref[np.ndarray]] = []
    batches = read_files(classifier, files(), 4)
    for number, batch in enumerate(batches, 1):
        assert job <= 4 * (number + predict.AHEAD)
        alive.append(weakref.ref(batch.pixels))
        if number == 20:
            break
    batches.close()
    del batch
    gc.collect()
    assert not [reference for reference in alive if reference() is not None]


def test_a_consumer_that_stops_early_leaves_no_thread_behind(classifier: Classifier, tmp_path: Path) -> None:
    write_surfaces(tmp_path, images_per_class=8, size=64, classes=("ok",))
    before = threading.active_count()
    rows = predict_files(classifier, sorted(tmp_path.rglob("*.png")) * 20, 4)
    next(rows)
    rows.close()
    assert threading.active_count() <= before
