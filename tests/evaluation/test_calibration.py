import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thaw.classifier.decision import Decision
from thaw.evaluation.calibration import apply_temperature, fit_temperature, reliability
from thaw.evaluation.metrics import Scored
from thaw.recipe import Task

TASKS: list[Task] = ["multiclass", "binary", "multilabel"]


def honest(task: Task, seed: int = 0, count: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and a truth drawn from them."""
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
def test_the_temperature_that_was_put_in_is_found(task: Task, temperature: float) -> None:
    probabilities, truth = honest(task)
    assert fit_temperature(apply_temperature(probabilities, 1 / temperature, task), truth, task) == pytest.approx(
        temperature, rel=0.1
    )


@settings(max_examples=30)
@given(st.integers(0, 500), st.sampled_from(TASKS), st.floats(0.3, 10))
def test_cooling_keeps_every_order_and_is_undone_by_its_inverse(seed: int, task: Task, temperature: float) -> None:
    probabilities, _ = honest(task, seed, 20)
    scaled = apply_temperature(probabilities, temperature, task)
    assert (scaled.argsort(axis=1) == probabilities.argsort(axis=1)).all()
    assert np.allclose(apply_temperature(scaled, 1 / temperature, task), probabilities, atol=1e-3)
    if task != "multilabel":
        assert np.allclose(scaled.sum(axis=1), 1.0)


def test_a_few_images_that_are_all_right_do_not_ask_for_certainty() -> None:
    truth = np.eye(3, dtype=bool)[[0, 1, 2] * 4]
    probabilities = truth * 0.7 + 0.1
    scaled = apply_temperature(probabilities, fit_temperature(probabilities, truth, "multiclass"), "multiclass")
    assert 0.8 < scaled.max() < 0.99


def test_bins_hold_every_answer_once() -> None:
    probabilities, truth = honest("multiclass")
    scored = Scored("multiclass", probabilities, truth, Decision().labels(probabilities, "multiclass"))
    bins = reliability(scored)
    assert sum(item.answers for item in bins) == len(truth)
    assert all(abs(item.confidence - item.right) < 0.1 for item in bins if item.answers > 200)
