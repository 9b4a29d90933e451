import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.classifier.metrics import Metrics
from thaw.recipe import Phase
from thaw.training.history import (
    EpochRecord,
    best_index,
    divergence,
    is_better,
    plateau_factor,
    should_stop,
)


def metrics(accuracy: float, loss: float = 0.5) -> Metrics:
    return Metrics(loss, accuracy, accuracy, accuracy, accuracy)


def records(accuracies: list[float], phase: str = "p", **values: Any) -> list[EpochRecord]:
    base = {"cut": "head", "lr": 0.1, "train_loss": 0.5, "seconds": 1.0, **values}
    return [EpochRecord(phase=phase, epoch=i + 1, val=metrics(a), **base) for i, a in enumerate(accuracies)]


def phase(**values: Any) -> Phase:
    return Phase(**{"name": "p", "cut": "head", "epochs": 100, "lr": 1e-3, "patience": 3, **values})


def test_ties_go_to_the_lower_loss_then_to_the_earlier_epoch() -> None:
    assert is_better(metrics(0.9, 0.2), metrics(0.9, 0.3), "accuracy")
    assert not is_better(metrics(0.9, 0.3), metrics(0.9, 0.3), "accuracy")
    assert best_index(records([0.5, 0.9, 0.9]), "accuracy") == 1


def test_the_monitor_may_be_the_loss() -> None:
    assert is_better(metrics(0.1, 0.2), metrics(0.9, 0.3), "loss")


def test_an_epoch_without_a_finite_loss_is_never_the_best() -> None:
    broken = [EpochRecord("p", 1, "head", 0.1, math.nan, metrics(1.0, math.nan), 1.0)]
    assert best_index(broken, "accuracy") is None
    assert best_index([*broken, *records([0.1])], "accuracy") == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_best_is_never_beaten(accuracies: list[float]) -> None:
    story = records(accuracies)
    best = best_index(story, "accuracy")
    assert best is not None
    assert accuracies[best] == max(accuracies)


def test_early_stopping_waits_for_patience_epochs_without_a_better_one() -> None:
    assert not should_stop(records([0.5, 0.6, 0.6, 0.6]), phase(), "accuracy")
    assert should_stop(records([0.5, 0.6, 0.6, 0.6, 0.6]), phase(), "accuracy")
    assert not should_stop(records([0.6] * 50), phase(patience=None), "accuracy")


def test_early_stopping_looks_at_its_own_phase_only() -> None:
    story = records([0.9], phase="head") + records([0.5, 0.6], phase="p")
    assert not should_stop(story, phase(), "accuracy")


def test_a_plateau_slows_down_after_two_epochs_without_a_lower_loss() -> None:
    losses = [1.0, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8]
    story = [EpochRecord("p", i + 1, "head", 0.1, 0.5, metrics(0.5, loss), 1.0) for i, loss in enumerate(losses)]
    assert [plateau_factor(story[:n], phase()) for n in (2, 3, 4, 6, 7)] == pytest.approx([1, 1, 0.3, 0.3, 0.09])


@pytest.mark.parametrize(("losses", "said"), [([0.5, math.nan], "nan"), ([0.7, 9.0], "grew"), ([0.7, 1.2], None)])
def test_divergence_is_told_apart_from_a_bad_epoch(losses: list[float], said: str | None) -> None:
    story = [EpochRecord("p", i + 1, "head", 0.1, loss, metrics(0.5), 1.0) for i, loss in enumerate(losses)]
    why = divergence(story, phase())
    assert why is None if said is None else said in str(why)


def test_a_record_survives_json() -> None:
    (record,) = records([0.25])
    assert EpochRecord.from_json(record.to_json()) == record


def test_a_solved_head_stops_once_two_weaker_penalties_in_a_row_lose_whatever_the_accuracy() -> None:
    def stops(*losses: float) -> bool:
        path = [
            EpochRecord("p", number, "head", 1.0, 0.5, metrics(0.5 + 0.1 * number, loss), 1.0)
            for number, loss in enumerate(losses)
        ]
        return should_stop(path, phase(solver="lbfgs", patience=None), "accuracy")

    assert not stops() and not stops(0.5) and not stops(0.5, 0.4, 0.3, 0.4)
    assert stops(0.5, 0.3, 0.4, 0.35)
    assert not stops(0.5, 0.3, 0.4, 0.2)
