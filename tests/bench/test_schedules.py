from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench import averaging, climbing, schedules, windows
from bench.epochs import schedules as epochs_of
from bench.schedules import HEAD, PLANNED, Training, with_schedule
from thaw.data.dataset import Dataset
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.training.gain import KeepRule, PhaseGain, phase_gain
from thaw.training.history import EpochRecord
from thaw.trial import Trial, TrialContext, begin


@pytest.fixture
def trial(images: Path, quick: Recipe, tmp_path: Path) -> Trial:
    """A head and a phase that thaws, which is kept for more than one standard error."""
    recipe = quick.model_copy(update={"keep_phase": "standard_error"})
    return begin(Dataset.open(images), recipe, TrialContext(tmp_path, NullReporter()))


def test_a_schedule_freezes_its_lowest_stage_as_the_plan_does_for_its_epochs(trial: Trial) -> None:
    phase = trial.recipe.phases[1].model_copy(update={"epochs": 10, "patience": 5, "freeze_after": (2,)})

    def after(epochs: int) -> tuple[int, ...]:
        (_, _), (_, found) = epochs_of(phase, [epochs])
        assert found == averaging.Schedule("", epochs=epochs).of(phase).model_copy(
            update={"optional": False, "patience": None}
        )
        return found.freeze_after

    assert (after(20), after(10), after(8)) == ((5,), (2,), ())
    assert with_schedule(phase.model_copy(update={"freeze_after": ()}), 20, None).freeze_after == ()


@pytest.mark.parametrize("comparison", [averaging, climbing, windows])
def test_a_comparison_keeps_a_phase_as_a_run_does(
    comparison: Any, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[bool] = []

    def observed(
        records: Sequence[EpochRecord], name: str, earlier: Sequence[PhaseGain], rule: KeepRule
    ) -> PhaseGain | None:
        assert rule.keep == "standard_error"
        gain = phase_gain(records, name, earlier, rule)
        found.append(gain is not None and gain.is_kept)
        return gain

    monkeypatch.setattr(schedules, "phase_gain", observed)
    monkeypatch.setattr(comparison, "SCHEDULES", [one for one in comparison.SCHEDULES if one.name == PLANNED])
    trainings: list[Training] = list(comparison.train(trial))
    # The recipe's epochs are those of the plan.
    assert [each.epochs for each in trainings if each.schedule == PLANNED] == [trial.recipe.phases[1].epochs]
    assert found and found == [each.is_kept for each in trainings if each.schedule != HEAD]
