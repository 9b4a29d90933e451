import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.metrics import MetricValues, per_epoch_metrics
from thaw.recipe import Phase
from thaw.training.history import (
    EpochRecord,
    best_index,
    divergence,
    is_better,
    plateau_factor,
    should_stop,
)


def metrics(accuracy: float, loss: float = 0.5) -> MetricValues:
    return MetricValues({metric.name: loss if metric.kind == "loss" else accuracy for metric in per_epoch_metrics()})


def records(accuracies: list[float], phase: str = "p", **values: Any) -> list[EpochRecord]:
    base = {"cut": "head", "lr": 0.1, "train_loss": 0.5, "seconds": 1.0, **values}
    return [EpochRecord(phase=phase, epoch=i + 1, val=metrics(a), **base) for i, a in enumerate(accuracies)]


def phase(**values: Any) -> Phase:
    return Phase(**{"name": "p", "cut": "head", "epochs": 100, "lr": 1e-3, "patience": 3, **values})


def test_ties_are_broken_by_the_lower_loss_then_by_the_earlier_epoch() -> None:
    assert is_better(metrics(0.9, 0.2), metrics(0.9, 0.3), "accuracy")
    assert not is_better(metrics(0.9, 0.3), metrics(0.9, 0.3), "accuracy")
    assert best_index(records([0.5, 0.9, 0.9]), "accuracy") == 1


def test_the_loss_can_be_monitored() -> None:
    assert is_better(metrics(0.1, 0.2), metrics(0.9, 0.3), "loss")


def test_an_epoch_without_a_finite_loss_is_never_the_best() -> None:
    broken = [EpochRecord("p", 1, "head", 0.1, math.nan, metrics(1.0, math.nan), 1.0)]
    assert best_index(broken, "accuracy") is None
    assert best_index([*broken, *records([0.1])], "accuracy") == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_best_epoch_has_the_highest_value(accuracies: list[float]) -> None:
    history = records(accuracies)
    best = best_index(history, "accuracy")
    assert best is not None
    assert accuracies[best] == max(accuracies)


def test_early_stopping_waits_for_patience_epochs_without_a_better_one() -> None:
    assert not should_stop(records([0.5, 0.6, 0.6, 0.6]), phase(), "accuracy")
    assert should_stop(records([0.5, 0.6, 0.6, 0.6, 0.6]), phase(), "accuracy")
    assert not should_stop(records([0.6] * 50), phase(patience=None), "accuracy")


def test_early_stopping_counts_epochs_of_its_phase_only() -> None:
    history = records([0.9], phase="head") + records([0.5, 0.6], phase="p")
    assert not should_stop(history, phase(), "accuracy")


def test_a_plateau_lowers_the_learning_rate_after_two_epochs_without_a_lower_loss() -> None:
    losses = [1.0, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8]
    history = [EpochRecord("p", i + 1, "head", 0.1, 0.5, metrics(0.5, loss), 1.0) for i, loss in enumerate(losses)]
    assert [plateau_factor(history[:n], phase()) for n in (2, 3, 4, 6, 7)] == pytest.approx([1, 1, 0.3, 0.3, 0.09])


@pytest.mark.parametrize(("losses", "message"), [([0.5, math.nan], "nan"), ([0.7, 9.0], "grew"), ([0.7, 1.2], None)])
def test_divergence_is_distinguished_from_a_bad_epoch(losses: list[float], message: str | None) -> None:
    history = [EpochRecord("p", i + 1, "head", 0.1, loss, metrics(0.5), 1.0) for i, loss in enumerate(losses)]
    reason = divergence(history, phase())
    assert reason is None if message is None else message in str(reason)


def test_a_record_survives_json() -> None:
    (record,) = records([0.25])
    assert EpochRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert record.to_json()["val"]["accuracy"] == 0.25


def test_a_solved_head_stops_after_two_penalties_in_a_row_with_a_higher_loss() -> None:
    def stops(*losses: float) -> bool:
        history = [
            EpochRecord("p", number, "head", 1.0, 0.5, metrics(0.5 + 0.1 * number, loss), 1.0)
            for number, loss in enumerate(losses)
        ]
        return should_stop(history, phase(solver="lbfgs", patience=None), "accuracy")

    assert not stops() and not stops(0.5) and not stops(0.5, 0.4, 0.3, 0.4)
    assert stops(0.5, 0.3, 0.4, 0.35)
    assert not stops(0.5, 0.3, 0.4, 0.2)
