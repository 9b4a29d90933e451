import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import averaging, climbing, first_epochs, phase_settings, schedules, windows
from bench.epochs import schedules as epochs_of
from bench.schedules import HEAD, PLANNED, Training, trained, with_schedule
from thaw.data.dataset import Dataset
from thaw.metrics import MetricValues
from thaw.progress import NullReporter
from thaw.recipe import Recipe, ResolvedPhase
from thaw.training.checkpoint import Progress
from thaw.training.context import FitContext
from thaw.training.gain import KeepRule, PhaseGain, phase_gain
from thaw.training.history import EpochRecord
from thaw.training.sources import PhaseSources
from thaw.trial import Trial, TrialContext, begin


@pytest.fixture
def trial(images: Path, quick: Recipe, tmp_path: Path) -> Trial:
    """A head and a phase that thaws, which is kept for more than one standard error."""
    recipe = quick.model_copy(update={"keep_phase": "standard_error"})
    return begin(Dataset.open(images), recipe, TrialContext(tmp_path, NullReporter()))


def test_several_seeds_need_several_splits(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(schedules, "begun", lambda data, seed, *_: seed)
    files = [(file, file.parent.name, "test" if file.stem > "005" else "train") for file in images.rglob("*.png")]
    for name, columns in (("split-0", 3), ("split-1", 3), ("fixed", 3), ("free", 2)):
        rows = [("path", "label", "split")[:columns], *(row[:columns] for row in files)]
        (tmp_path / f"{name}.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))

    def seeds_of(name: str, seeds: int) -> list[object]:
        found: list[object] = []
        arguments = argparse.Namespace(data=[str(tmp_path / name)], set=[], work=tmp_path / "work", seeds=seeds)
        trained(arguments, "log.jsonl", Training, lambda seed: found.append(seed) or [])
        return found

    assert seeds_of("split-{seed}.csv", 2) == seeds_of("free.csv", 2) == [0, 1]
    assert seeds_of("fixed.csv", 1) == [0]
    with pytest.raises(SystemExit, match=r"fixed\.csv: all seeds have its splits"):
        seeds_of("fixed.csv", 2)


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


@pytest.mark.parametrize("comparison", [averaging, climbing, first_epochs, phase_settings, windows])
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
    monkeypatch.setattr(phase_settings, "SETTINGS", {PLANNED: {}})
    for module in (averaging, climbing, windows):
        monkeypatch.setattr(module, "SCHEDULES", [one for one in module.SCHEDULES if one.name == PLANNED])
    trainings: list[Training] = list(comparison.train(trial))
    # The recipe's epochs are those of the plan.
    assert [each.epochs for each in trainings if each.schedule == PLANNED] == [trial.recipe.phases[1].epochs]
    assert found and found == [each.is_kept for each in trainings if each.schedule != HEAD]


def test_a_phase_ends_after_its_first_epochs_where_none_is_as_good_as_the_head(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.0, 0.1, 0.0, 1.0])

    def records(run: FitContext, phase: ResolvedPhase, sources: PhaseSources) -> Iterator[Progress]:
        found = Progress()
        for number, value in enumerate(values, start=1):
            val = MetricValues({"loss": 1.0, run.settings.monitor: value})
            record = EpochRecord(phase.name, number, phase.cut, 1e-3, 1.0, val, 1.0)
            found = replace(found, records=(*found.records, record))
            yield found

    monkeypatch.setattr(first_epochs, "epochs_of", records)
    found = {each.schedule: each for each in first_epochs.train(trial)}
    epochs = {name: each.epochs for name, each in found.items() if name != HEAD}
    assert epochs == {PLANNED: 4, "the first 2": 2, "the first 3": 3, "the first 4": 4, "the first 5": 4}
    assert not found["the first 2"].is_kept and not found["the first 3"].is_kept
