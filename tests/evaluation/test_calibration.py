import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thaw.classifier.decision import Decision
from thaw.evaluation.calibration import apply_temperature, fit_temperature, reliability
from thaw.metrics import Scored
from thaw.recipe import Task

TASKS: list[Task] = ["multiclass", "binary", "multilabel"]


def calibrated(task: Task, seed: int = 0, count: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities, and true labels drawn from them."""
    rng = np.random.default_rng(seed)
    if task == "multilabel":
        probabilities = rng.uniform(0.02, 0.98, (count, 3))
        return probabilities, rng.random((count, 3)) < probabilities
    classes = 2 if task == "binary" else 4
    probabilities = rng.dirichlet(np.ones(classes), count)
    drawn = (rng.random((count, 1)) < probabilities.cumsum(axis=1)).argmax(axis=1)
    return probabilities, drawn[:, None] == np.arange(classes)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_recovered(task: Task, temperature: float) -> None:
    probabilities, truth = calibrated(task)
    assert fit_temperature(apply_temperature(probabilities, 1 / temperature, task), truth, task) == pytest.approx(
        temperature, rel=0.1
    )


@settings(max_examples=30)
@given(st.integers(0, 500), st.sampled_from(TASKS), st.floats(0.3, 10))
def test_a_temperature_keeps_rankings_and_is_undone_by_its_inverse(seed: int, task: Task, temperature: float) -> None:
    probabilities, _ = calibrated(task, seed, 20)
    scaled = apply_temperature(probabilities, temperature, task)
    assert (scaled.argsort(axis=1) == probabilities.argsort(axis=1)).all()
    assert np.allclose(apply_temperature(scaled, 1 / temperature, task), probabilities, atol=1e-3)
    if task != "multilabel":
        assert np.allclose(scaled.sum(axis=1), 1.0)


def test_a_few_correct_predictions_do_not_push_confidence_to_1() -> None:
    truth = np.eye(3, dtype=bool)[[0, 1, 2] * 4]
    probabilities = truth * 0.7 + 0.1
    scaled = apply_temperature(probabilities, fit_temperature(probabilities, truth, "multiclass"), "multiclass")
    assert 0.8 < scaled.max() < 0.99


def test_bins_contain_every_prediction_once() -> None:
    probabilities, truth = calibrated("multiclass")
    scored = Scored("multiclass", probabilities, truth, Decision().labels(probabilities, "multiclass"))
    bins = reliability(scored)
    assert sum(item.count for item in bins) == len(truth)
    assert all(abs(item.confidence - item.accuracy) < 0.1 for item in bins if item.count > 200)
