"""Thawed stages trained on random windows of the cached maps: test accuracy and price, next to whole maps.

    python -m bench.windows ants-{seed}.csv cells-{seed}.csv --work FOLDER --seeds 3 --set weights=model.safetensors

`{seed}` in a path is replaced by each seed. The head is trained, the features at the first thawed cut are extracted
once, and from that head the phase that thaws is trained as planned and with each of `SCHEDULES`. An epoch on windows
has one random window of each map, `FRACTION` of its side. The statistics of the stages below the cut, which the head
may take as well, stay those of the whole map, as on validation, which is always on whole maps. Each training ends with
its best epoch on validation, of those on whole maps. The average of the weights over about one epoch of steps (EMA) is
validated and tested as well. Trainings that are already in `FOLDER/windows.jsonl` are skipped.

Prints, for each data set, the mean test accuracy and epochs of each schedule, and how often a run would keep the phase;
then the differences to the plan on the same test images with their standard errors, and the ratios of the prices. The
price of a phase is that of its images: 1 for each that is trained on its whole map, the ratio of measured step times
for one on a window, 0.4 for one that is validated, as the forecast of a run has it; what freezing the lowest stage
again saves is not in it.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from bench.scheduled_source import Schedule, ScheduledSource, counted, windows_of
from bench.schedules import (
    HEAD,
    PLANNED,
    Results,
    Training,
    correct_on,
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
from thaw.backbones.stages import AtCut
from thaw.planning.step_timer import StepMode, StepTimer
from thaw.recipe import ResolvedPhase
from thaw.training import epoch
from thaw.training.context import FitCallbacks, FitContext, FitSettings, TrainingPaused
from thaw.training.fit import fit
from thaw.training.history import EpochRecord, is_better, should_stop
from thaw.training.sources import PhaseSources, Source
from thaw.training.validation import validate
from thaw.trial import Trial

AVERAGED, ANY_EPOCH = ", EMA", ", any epoch"
SHORTER = (2, 3)
"""Patience of early stopping with which the plan's training is evaluated as well."""
VALIDATED = 0.4


SCHEDULES = (
    Schedule("whole 10", 0, 10),
    Schedule("windows 8 + 2", 8, 2),
    Schedule("windows 8 + 2, skipping", 8, 2, skips=True),
    Schedule("windows at most 17, then 3", 17, 3, patience=3),
    Schedule("whole 7", 0, 7),
)


@dataclass(frozen=True)
class CountedTraining(Training):
    """One training of one phase.

    windows, whole, validated: images, over all epochs. ratio: time of a step on windows as a fraction of one on whole
    maps.
    """

    windows: int = 0
    whole: int = 0
    validated: int = 0
    ratio: float = 1.0

    @property
    def price(self) -> float:
        return self.ratio * self.windows + self.whole + VALIDATED * self.validated


class Averages:
    """The exponential moving average of what an optimizer trains, over about `steps` steps."""

    def __init__(self, steps: int) -> None:
        self._steps, self._done = steps, 0
        self._parameters: list[Tensor] = []
        self._averages: list[Tensor] = []

    def update(self, optimizer: Optimizer) -> None:
        """After a step of the optimizer."""
        if not self._parameters:
            self._parameters = [each.detach() for group in optimizer.param_groups for each in group["params"]]
            self._averages = [each.clone() for each in self._parameters]
        self._done += 1
        torch._foreach_lerp_(self._averages, self._parameters, 1 / min(self._done, self._steps))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The averages in place of the parameters."""
        kept = [each.clone() for each in self._parameters]
        torch._foreach_copy_(self._parameters, self._averages)
        yield
        torch._foreach_copy_(self._parameters, kept)


class Watcher:
    """Ends windows and phases as their schedule says, validates the averages, and tests each best epoch so far.

    best: the best epoch on validation, and 0 or 1 for each test image, of the weights (""), of their averages, where
    epochs on windows count as well, and where the plan had less patience. counts: of what that took, where it took
    less.
    """

    def __init__(self, trial: Trial, settings: FitSettings, source: ScheduledSource, val: Source) -> None:
        self._trial, self._settings, self._source, self._val = trial, settings, source, val
        self._phase = trial.recipe.phases[1]
        self._cut = trial.classifier.backbone.cut(self._phase.cut)
        self._test = sources_of_test(trial, self._phase.name)
        self.averages = Averages(-(-len(source) // self._phase.batch_size))
        self.counts: dict[str, tuple[int, int, int, int]] = {}
        self.best: dict[str, tuple[EpochRecord, tuple[int, ...]]] = {}
        self.validated, self.is_over = 0, False

    def on_epoch(self, records: Sequence[EpochRecord], _: bool) -> None:
        source, schedule = self._source, self._source.schedule
        was_on_windows = source.is_on_windows
        source.end_epoch()
        own = [record for record in records if record.phase == self._phase.name]
        stalls = self._stalls(own, schedule.patience)
        if schedule.patience or not was_on_windows:
            self.validated += len(self._val)
        if schedule.patience and schedule.windows:
            self._offer(ANY_EPOCH, own[-1])
        if was_on_windows:
            source.whole_from = source.epoch if stalls else source.whole_from
            return
        self.is_over = source.epoch == source.whole_from + schedule.whole if schedule.windows else stalls
        self._offer("", own[-1])
        for patience in SHORTER if schedule.name == PLANNED else ():
            name = f", patience {patience}"
            if name not in self.counts and (self._stalls(own, patience) or source.epoch == schedule.epochs):
                self.best[name], self.counts[name] = self.best[""], self.counted()
        with self.averages.in_place():
            found = validate(self._trial.classifier, self._cut, self._val, self._settings)
            self._offer(AVERAGED, replace(own[-1], val=found.values, without=found.without))

    def counted(self) -> tuple[int, int, int, int]:
        """Epochs, and images on windows, on whole maps and of validation."""
        return self._source.epoch, self._source.windows, self._source.whole, self.validated

    def _stalls(self, own: Sequence[EpochRecord], patience: int | None) -> bool:
        return should_stop(own, self._phase.model_copy(update={"patience": patience}), self._settings.monitor)

    def _offer(self, name: str, epoch: EpochRecord) -> None:
        if name not in self.best or is_better(epoch.val, self.best[name][0].val, self._settings.monitor):
            self.best[name] = epoch, correct_on(self._trial.classifier, self._test, self._settings.precision)


def step_ratio(trial: Trial, phase: ResolvedPhase, source: Source) -> float:
    """Time of a step on windows as a fraction of one on whole maps: the median of alternate measurements."""
    recipe = trial.recipe
    mode = StepMode(recipe.precision, recipe.steps, recipe.memory_format, phase.batch_size)
    whole, _ = source.batch(np.arange(phase.batch_size), 0)
    window = AtCut(windows_of(whole.values, np.full((phase.batch_size, 2), 0.5)), whole.stages)
    rates = [[StepTimer(trial.classifier, [phase], [at]).rate(0, mode) for at in (whole, window)] for _ in range(5)]
    return statistics.median(of_whole / of_window for of_whole, of_window in rates)


def train(trial: Trial) -> Iterator[CountedTraining]:
    """The head, then the phase that thaws with each schedule, each from the weights that the head phase has left."""
    head, thawed = trial.recipe.phases[:2]
    context, progress = with_head(trial, trial.folder.checkpoints / HEAD)
    settings = context.settings
    state = state_of(trial.classifier)
    seed = settings.seed
    correct = correct_on(trial.classifier, sources_of_test(trial, thawed.name), settings.precision)
    yield CountedTraining("", seed, HEAD, 0, True, correct)
    sources = trial.inputs.sources_of(1)
    assert sources.val is not None
    ratio = step_ratio(trial, thawed, sources.train)
    planned = Schedule(PLANNED, 0, thawed.epochs, thawed.patience)
    for schedule in (planned, *SCHEDULES):
        trial.classifier.load_state_dict(state)
        own = replace(settings, checkpoints=trial.folder.checkpoints / schedule.name)
        shutil.copytree(settings.checkpoints, own.checkpoints)
        phase = with_schedule(thawed, schedule.epochs, patience=None).model_copy(update={"optional": False})
        source = ScheduledSource.of(sources.train, schedule, settings.seed)
        watcher = Watcher(trial, own, source, sources.val)
        _fit(FitContext(trial.classifier, (head, phase), own, context.callbacks), watcher, source, sources.val)
        for name, (best, correct) in watcher.best.items():
            kept = is_kept(progress, best, settings.keep_rule)
            epochs, *images = watcher.counts.get(name, watcher.counted())
            title, (windows, whole, validated) = schedule.name + name, images
            yield CountedTraining("", seed, title, epochs, kept, correct, windows, whole, validated, ratio)


def _fit(context: FitContext, watcher: Watcher, source: ScheduledSource, val: Source) -> None:
    """The last phase of a context, from what the head phase has left in its checkpoints."""
    watched = replace(context, callbacks=FitCallbacks(watcher.on_epoch, print, lambda _: watcher.is_over))
    do_step = epoch.step

    def step(optimizer: Optimizer) -> None:
        do_step(optimizer)
        watcher.averages.update(optimizer)

    with patch.object(epoch, "step", step), counted(context.classifier, source), suppress(TrainingPaused):
        fit(watched, lambda _: PhaseSources(source, val))


def _epochs(trainings: Sequence[CountedTraining]) -> str:
    return f", {statistics.mean(each.epochs for each in trainings):.1f}"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--ratio", type=float, help="of the step times, measured on a quiet machine; else as measured")
    arguments = parser.parse_args()
    results = trained(arguments, "windows.jsonl", CountedTraining, train)
    if arguments.ratio:
        results = Results([replace(each, ratio=arguments.ratio) for each in results.trainings])
    print(means(results, _epochs))
    for data in results.sets:
        ratio = statistics.median(each.ratio for each in results.of(data, PLANNED))
        print(f"{data}: a step on windows takes {ratio:.2f} of the time of one on whole maps")
    show_differences(results)


if __name__ == "__main__":
    main()
