from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from tests.training.test_fit import IMAGES, train_one_phase
from thaw.recipe import Phase
from thaw.training import epoch
from thaw.training.epoch import ActivePhase
from thaw.training.history import PLATEAU_FACTOR, PLATEAU_PATIENCE
from thaw.training.schedule import factor_at

PHASE = Phase(name="top", cut="stages:2", epochs=2, lr=1e-3, batch_size=6, solver="optimizer")
SOLVED = Phase(name="head", cut="head", epochs=1, lr=1e-3, batch_size=6, solver="lbfgs")
STEPS = IMAGES // 6


def weights_of(folder: Path, phase: Phase, **changes: Any) -> Tensor:
    """All weights of a run of one phase without dropout, one after the other."""
    weights, _ = train_one_phase(folder, phase, **changes)
    return torch.cat([value.flatten().float() for value in weights.values()])


@pytest.mark.parametrize(
    ("before", "changed"),
    [
        ({}, {"lr": 2e-3}),
        ({}, {"optimizer": "sgd"}),
        ({}, {"weight_decay": 0.5}),
        ({"optimizer": "sgd"}, {"momentum": 0.0}),
        ({}, {"schedule": "constant"}),
        ({}, {"warmup_epochs": 1.0}),
        ({}, {"layer_decay": 0.5}),
        ({}, {"batch_size": 9}),
        ({}, {"mixup": 0.2}),
        ({}, {"label_smoothing": 0.1}),
        ({}, {"batchnorm": "train"}),
        ({}, {"cut": "stages:1"}),
    ],
    ids=lambda values: "-".join(values),
)
def test_every_setting_of_a_phase_changes_what_it_trains_to(
    before: dict[str, Any], changed: dict[str, Any], tmp_path: Path
) -> None:
    phase = PHASE.model_copy(update=before)
    expected, again = (weights_of(tmp_path / name, phase) for name in ("before", "again"))
    assert torch.equal(expected, again)
    assert not torch.equal(expected, weights_of(tmp_path / "changed", phase.model_copy(update=changed)))


@pytest.mark.parametrize("phase", [PHASE, SOLVED], ids=lambda phase: phase.solver)
def test_label_smoothing_and_class_weights_change_the_loss_of_every_solver(phase: Phase, tmp_path: Path) -> None:
    expected = weights_of(tmp_path / "before", phase)
    smoothed = phase.model_copy(update={"label_smoothing": 0.1})
    assert not torch.equal(expected, weights_of(tmp_path / "smoothed", smoothed))
    weights = torch.tensor([3.0, 1.0, 1.0])
    assert not torch.equal(expected, weights_of(tmp_path / "weighted", phase, class_weights=weights))


def observe_steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[float], int]]:
    """For each training step to come: the learning rates of its groups, and the seed that dropout draws from."""
    observed: list[tuple[list[float], int]] = []
    train_step = epoch._train_step

    def observing(active: ActivePhase, *arguments: Any) -> Tensor:
        observed.append(([group["lr"] for group in active.optimizer.param_groups], torch.initial_seed()))
        return train_step(active, *arguments)

    monkeypatch.setattr(epoch, "_train_step", observing)
    return observed


def test_another_seed_shuffles_otherwise_and_draws_other_dropout_in_every_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observed = observe_steps(monkeypatch)
    first, second = (weights_of(tmp_path / str(seed), PHASE, seed=seed) for seed in (0, 1))
    assert not torch.equal(first, second)
    seeds = [seed for _, seed in observed]
    assert [seeds.count(seed) for seed in seeds] == [STEPS] * (2 * PHASE.epochs * STEPS)


@pytest.mark.parametrize("schedule", get_args(Phase.model_fields["schedule"].annotation))
def test_every_step_is_taken_at_the_learning_rate_of_the_schedule_and_the_last_one_is_recorded(
    schedule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observed = observe_steps(monkeypatch)
    phase = PHASE.model_copy(update={"schedule": schedule, "warmup_epochs": 0.5, "layer_decay": 0.5, "epochs": 3})
    _, progress = train_one_phase(tmp_path, phase)
    factors = [factor_at(phase, number, STEPS) for number in range(phase.epochs * STEPS)]
    for (rates, _), factor in zip(observed, factors, strict=True):
        assert {round(rate / factor / phase.lr, 6) for rate in rates} == {1.0, 0.5, 0.25}
    assert [record.lr for record in progress.records] == pytest.approx([phase.lr * each for each in factors[2::3]])


def test_the_plateau_schedule_lowers_the_learning_rate_while_validation_does_not_improve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observed = observe_steps(monkeypatch)
    epochs = 1 + 2 * PLATEAU_PATIENCE + 1
    phase = PHASE.model_copy(update={"cut": "head", "schedule": "plateau", "epochs": epochs, "patience": None})
    _, progress = train_one_phase(tmp_path, phase, wrong_by=1)
    losses = [record.val.loss for record in progress.records]
    assert losses == sorted(losses)
    rates = [phase.lr * PLATEAU_FACTOR**lowered for lowered in (0, 0, 0, 1, 1, 2)]
    assert [record.lr for record in progress.records] == pytest.approx(rates)
    assert [taken for (taken, *_), _ in observed[::STEPS]] == pytest.approx(rates)
