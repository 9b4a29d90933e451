"""A cut that climbs: thawed stages frozen again, from the lowest up, while the phase goes on above them.

    python -m bench.climbing ants-{seed}.csv cells-{seed}.csv --work FOLDER --seeds 3 --set weights=model.safetensors

`{seed}` in a path is replaced by each seed. The head is trained, the features at the first thawed cut are extracted
once, and from that head the phase that thaws is trained with each of `SCHEDULES`, with the early stopping of the plan.
Where the cut climbs, the features above the stage are extracted once more, from the cached maps, in all views, and
every later epoch reads these. `PLANNED`, with which the others are compared, never freezes a stage. Trainings that are
already in `FOLDER/climbing.jsonl` are skipped.

Freezing from the bottom while the rest trains is from Brock et al. 2017 (FreezeOut); doing so once the outputs of a
stage stop changing, and caching them, from Wang et al. 2023 (Egeria).

Prints, for each data set, the mean test accuracy, CPU seconds and epochs of each schedule, and how often a run would
keep the phase; how far the weights and the outputs of each thawed stage move in each epoch of the plan; then the
differences to the plan on the same test images with their standard errors, and the ratios of the CPU seconds, which
include those of extracting the features. Use one thread: the CPU seconds of several also count their waiting.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from bench.schedules import (
    HEAD,
    PLANNED,
    Results,
    Training,
    correct_on,
    is_kept,
    means,
    parser_of,
    row,
    show_differences,
    sources_of_test,
    state_of,
    trained,
    with_head,
)
from thaw.backbones.cuts import Cut, lies_in
from thaw.classifier.classifier import Classifier
from thaw.training.checkpoint import Progress
from thaw.training.epoch import ActivePhase, begin_phase, fit_epoch, freeze_lowest
from thaw.training.history import EpochRecord, best_index, should_stop
from thaw.training.phases import EvaluationSources
from thaw.training.sources import Source
from thaw.trial import Trial

SAMPLE = 64
"""Validation images on which the outputs of a stage are compared from epoch to epoch."""


@dataclass(frozen=True)
class Schedule:
    """When the lowest stage that trains is frozen.

    after: numbers of epochs. below: the relative change of the output of the lowest thawed stage in an epoch.
    """

    name: str
    after: tuple[int, ...] = ()
    below: float = 0.0


SCHEDULES = (
    Schedule(PLANNED),
    Schedule("after 5", after=(5,)),
    Schedule("after 3 and 6", after=(3, 6)),
    Schedule("output moves < 10 %", below=0.1),
    Schedule("one stage fewer", after=(0,)),
)


@dataclass(frozen=True)
class Move:
    """Relative L2 changes of one stage in one epoch: of its weights, and of its output on the sample."""

    stage: str
    epoch: int
    weights: float
    output: float

    @property
    def at(self) -> tuple[str, int]:
        """What moved when."""
        return self.stage, self.epoch


@dataclass(frozen=True)
class ClimbedTraining(Training):
    """One training of one phase.

    seconds: CPU time of its steps, its validation, and of extracting features again. extracting: of the last alone.
    climbed: the epochs after which the cut climbed. moves: of the stages that were thawed.
    """

    seconds: float = 0.0
    extracting: float = 0.0
    climbed: tuple[int, ...] = ()
    moves: tuple[Move, ...] = ()

    def __post_init__(self) -> None:
        # As they are read from a file.
        object.__setattr__(
            self, "moves", tuple(Move(**each) if isinstance(each, dict) else each for each in self.moves)
        )

    @property
    def price(self) -> float:
        return self.seconds


def relative_change(before: Tensor, after: Tensor) -> float:
    """L2 norm of the difference as a fraction of that of `before`."""
    return float((after - before).norm() / before.norm())


@dataclass
class Stages:
    """The thawed stages as they were one epoch ago: their weights, and their outputs on a sample of validation.

    source: of validation, at the planned cut.
    """

    source: Source
    cut: Cut
    classifier: Classifier
    before: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def moves(self, epoch: int) -> list[Move]:
        """How far each stage has moved since the last call; none in the first."""
        now = dict(self._now())
        found = [Move(stage, epoch, *map(relative_change, was, now[stage])) for stage, was in self.before.items()]
        self.before = now
        return found

    def _now(self) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
        backbone, position = self.classifier.backbone, self.cut.position
        inputs, _ = self.source.batch(np.arange(min(SAMPLE, len(self.source))), 0)
        backbone.eval()
        for stage, members in groupby(backbone.blocks[position:], key=lambda block: block.stage):
            blocks = list(members)
            end = position + len(blocks)
            with torch.no_grad():
                inputs = backbone.advance(inputs, position, end)
            modules = {name for block in blocks for name in block.modules}
            weights = [each.flatten() for name, each in backbone.network.named_parameters() if lies_in(name, modules)]
            yield stage, (torch.cat(weights).detach().clone(), inputs.values)
            position = end


def train(trial: Trial) -> Iterator[ClimbedTraining]:
    """The head, then the phase that thaws with each schedule, each from the weights that the head phase has left."""
    thawed = trial.recipe.phases[1]
    run, head = with_head(trial, trial.folder.checkpoints)
    settings = run.settings
    state = state_of(trial.classifier)
    sources = trial.inputs.sources_of(1)
    test = sources_of_test(trial, thawed.name)
    yield ClimbedTraining("", settings.seed, HEAD, 0, True, correct_on(trial.classifier, test, settings.precision))
    for schedule in SCHEDULES:
        trial.classifier.load_state_dict(state)
        phase = thawed.model_copy(update={"freeze_after": schedule.after})
        found, best = _trained(schedule, begin_phase(run, phase, sources), test)
        yield replace(found, is_kept=best is not None and is_kept(head, best, settings.keep_rule))


def _trained(
    schedule: Schedule, active: ActivePhase, test: EvaluationSources
) -> tuple[ClimbedTraining, EpochRecord | None]:
    """One training, and its best epoch; `None` where none has a finite loss."""
    run, phase, sources = active.run, active.phase, active.sources
    assert sources.val is not None
    progress, stages = Progress(phase=1, batch_size=phase.batch_size), Stages(sources.val, active.cut, run.classifier)
    seconds, extracting, climbed, moves = 0.0, 0.0, list[int](), stages.moves(0)
    correct, best = tuple[int, ...](), None
    while progress.epoch < phase.epochs and not should_stop(progress.records, phase, run.settings.monitor):
        if any(move.output < schedule.below for move in moves if move.at == (active.cut.name, progress.epoch)):
            phase = phase.model_copy(update={"freeze_after": (*phase.freeze_after, progress.epoch)})
        below, started = active.cut, time.process_time()
        active = freeze_lowest(replace(active, phase=phase), sources, progress.epoch)
        extracted = time.process_time()
        record = fit_epoch(active, progress)
        seconds, extracting = seconds + time.process_time() - started, extracting + extracted - started
        climbed += [progress.epoch] if active.cut != below else []
        progress = replace(progress, epoch=progress.epoch + 1, records=(*progress.records, record))
        moves += stages.moves(progress.epoch)
        if best_index(progress.records, run.settings.monitor) == progress.epoch - 1:
            correct, best = correct_on(run.classifier, test, run.settings.precision), record
    found = ClimbedTraining("", run.settings.seed, schedule.name, progress.epoch, False, correct)
    return replace(found, seconds=seconds, extracting=extracting, climbed=tuple(climbed), moves=tuple(moves)), best


def movements(results: Results[ClimbedTraining]) -> str:
    """Markdown: how far each thawed stage moves in some epochs of the plan, in percent; weights, then output."""
    wanted = (1, 2, 3, 5, 8, 12, 16, 20)
    lines = [row("set", "stage", *(f"epoch {epoch}" for epoch in wanted)), row(*["---"] * (2 + len(wanted)))]
    for data in results.sets:
        moves = [move for training in results.of(data, PLANNED) for move in training.moves]
        for stage in dict.fromkeys(move.stage for move in moves):
            cells = []
            for epoch in wanted:
                found = [move for move in moves if move.at == (stage, epoch)]
                means_of = (statistics.mean(getattr(each, what) for each in found) for what in ("weights", "output"))
                cells.append(", ".join(f"{100 * value:.2f}" for value in means_of) if found else "")
            lines.append(row(data, stage, *cells))
    return "\n".join(lines)


def _details(trainings: Sequence[ClimbedTraining]) -> str:
    seconds, extracting, epochs = (
        statistics.mean(getattr(each, what) for each in trainings) for what in ("seconds", "extracting", "epochs")
    )
    places = "; ".join("/".join(map(str, each.climbed)) for each in trainings if each.climbed)
    return f", {seconds:.1f} s ({extracting:.1f}), {epochs:.1f}" + (f", climbed after {places}" if places else "")


def main() -> None:
    results = trained(parser_of(__doc__).parse_args(), "climbing.jsonl", ClimbedTraining, train)
    print(means(results, _details))
    print(f"\n{movements(results)}")
    show_differences(results)


if __name__ == "__main__":
    main()
