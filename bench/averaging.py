"""The mean of the weights of several epochs in place of the best one, and other numbers of epochs.

    python -m bench.averaging ants-{seed}.csv cells-{seed}.csv --work FOLDER --seeds 3 --set weights=model.safetensors

`{seed}` in a path is replaced by each seed. The head is trained, and from it the phase that thaws with each of
`SCHEDULES`. Of each training are tested the epoch that is best on validation; the mean of the three best ones
(Izmailov et al. 2018, Averaging weights leads to wider optima); and the mean of all those that make it no worse on
validation, taken from the best down (Wortsman et al. 2022, Model soups: greedy). A mean is a network of the same size.
Trainings that are already in `FOLDER/averaging.jsonl` are skipped.

Prints the mean test accuracy of each, its CPU seconds, and how often a run would keep it; then the differences to the
best epoch as planned, on the same test images, with their standard errors, and the ratios of the CPU seconds, which
include validating the means.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from bench.schedules import (
    HEAD,
    PLANNED,
    State,
    Training,
    correct_on,
    epochs_of,
    is_kept,
    means,
    parser_of,
    show_differences,
    sources_of_test,
    state_of,
    trained,
    with_head,
    with_schedule,
)
from thaw.recipe import ResolvedPhase
from thaw.training.history import EpochRecord
from thaw.training.validation import validate
from thaw.trial import Trial


@dataclass(frozen=True)
class Schedule:
    """Epochs and patience of the phase; `None` for those of the plan."""

    name: str
    epochs: int | None = None
    patience: int | None = None

    def of(self, phase: ResolvedPhase) -> ResolvedPhase:
        """The phase with this schedule."""
        return with_schedule(phase, self.epochs or phase.epochs, self.patience or phase.patience)


SCHEDULES = (
    Schedule(PLANNED),
    Schedule("20 epochs", epochs=20),
    Schedule("20 epochs, patience 3", epochs=20, patience=3),
    Schedule("8 epochs, patience 3", epochs=8, patience=3),
)


@dataclass(frozen=True)
class Averaged(Training):
    """One result; seconds: CPU time of the epochs, of their validation, and of that of the means. members: epochs."""

    seconds: float = 0.0
    members: int = 1

    @property
    def price(self) -> float:
        return self.seconds


@dataclass(frozen=True)
class Candidate:
    """Weights of one epoch, or the mean of several, and the epoch as it would be with these weights."""

    state: State
    record: EpochRecord
    members: int = 1


def mean_of(states: Sequence[State]) -> State:
    """The mean of each tensor of floating-point numbers; of the others the last one."""
    last = states[-1]
    return {
        key: torch.stack([state[key] for state in states]).mean(dim=0) if last[key].is_floating_point() else last[key]
        for key in last
    }


def train(trial: Trial) -> Iterator[Averaged]:
    """The head, then the phase that thaws with each schedule, each from the weights that the head phase has left."""
    thawed = trial.recipe.phases[1]
    run, head = with_head(trial, trial.folder.checkpoints)
    settings, start, sources = run.settings, state_of(run.classifier), trial.inputs.sources_of(1)
    test = sources_of_test(trial, thawed.name)
    assert sources.val is not None
    val, cut = sources.val, run.classifier.backbone.cut(thawed.cut)
    yield Averaged("", settings.seed, HEAD, 0, True, correct_on(run.classifier, test, settings.precision))

    def value(one: Candidate) -> tuple[float, float]:
        return one.record.val.by(settings.monitor), -one.record.val.loss

    def averaged(members: Sequence[Candidate]) -> Candidate:
        state = mean_of([one.state for one in members])
        run.classifier.load_state_dict(state)
        found = validate(run.classifier, cut, val, settings)
        record = replace(members[0].record, val=found.values, without=found.without)
        return Candidate(state, record, len(members))

    for schedule in SCHEDULES:
        run.classifier.load_state_dict(start)
        phase, started = schedule.of(thawed), time.process_time()
        epochs = [
            Candidate(state_of(run.classifier), progress.records[-1]) for progress in epochs_of(run, phase, sources)
        ]
        seconds, ranked = time.process_time() - started, sorted(epochs, key=value, reverse=True)
        for name, average in (("", _best), (", mean of 3", _of_three), (", greedy", _greedy)):
            started = time.process_time()
            found = average(ranked, averaged, value)
            took = seconds + time.process_time() - started
            run.classifier.load_state_dict(found.state)
            kept = is_kept(head, found.record, settings.keep_rule)
            correct = correct_on(run.classifier, test, settings.precision)
            told = f"{schedule.name}{name}"
            yield Averaged("", settings.seed, told, len(epochs), kept, correct, took, found.members)


Average = Callable[[Sequence[Candidate]], Candidate]
Value = Callable[[Candidate], tuple[float, float]]


def _best(ranked: Sequence[Candidate], averaged: Average, value: Value) -> Candidate:
    return ranked[0]


def _of_three(ranked: Sequence[Candidate], averaged: Average, value: Value) -> Candidate:
    return averaged(ranked[:3])


def _greedy(ranked: Sequence[Candidate], averaged: Average, value: Value) -> Candidate:
    members, best = [ranked[0]], ranked[0]
    for one in ranked[1:]:
        found = averaged([*members, one])
        if value(found) >= value(best):
            members, best = [*members, one], found
    return best


def _details(found: Sequence[Averaged]) -> str:
    seconds, epochs, members = (
        statistics.mean(getattr(each, what) for each in found) for what in ("seconds", "epochs", "members")
    )
    return f", {seconds:.1f} s, {members:.1f} of {epochs:.1f} epochs"


def main() -> None:
    results = trained(parser_of(__doc__).parse_args(), "averaging.jsonl", Averaged, train)
    print(means(results, _details))
    show_differences(results)


if __name__ == "__main__":
    main()
