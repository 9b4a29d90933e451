"""Several schedules of one phase, trained from the same head: what `bench.epochs`, `bench.windows` and others share.

A schedule is compared with the plan's on the same test images of the same splits.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor

import thaw
from bench.work_folder import use_work_folder
from thaw.cache import cache_folder, clear
from thaw.classifier.classifier import Classifier
from thaw.cli.parsing import parsed_settings
from thaw.features.torch_runner import Precision
from thaw.planning.freezing import epochs_before_freezing
from thaw.progress import NullReporter
from thaw.recipe import ResolvedPhase, SplitSettings
from thaw.training.checkpoint import Progress
from thaw.training.context import FitCallbacks, FitContext
from thaw.training.epoch import begin_phase, fit_epoch, freeze_lowest
from thaw.training.fit import fit
from thaw.training.gain import KeepRule, phase_gain
from thaw.training.history import EpochRecord, should_stop
from thaw.training.outputs import probabilities_at
from thaw.training.phases import EvaluationSources
from thaw.training.sources import PhaseSources
from thaw.trial import Trial, TrialContext, begin, fit_settings

HEAD, PLANNED = "head", "planned"


@dataclass(frozen=True)
class Training:
    """One training of one phase.

    schedule: `HEAD`, `PLANNED`, or another. epochs: how many were trained. is_kept: whether a run keeps the phase in
    place of the head. correct: 0 or 1 for each test image.
    """

    data: str
    seed: int
    schedule: str
    epochs: int
    is_kept: bool
    correct: tuple[int, ...]

    @property
    def accuracy(self) -> float:
        """On test, in percent."""
        return 100 * statistics.mean(self.correct)

    @property
    def price(self) -> float:
        """What the training took, in some unit."""
        raise NotImplementedError


@dataclass(frozen=True)
class TimedTraining(Training):
    """One training of one phase; seconds: CPU time of its epochs and their validation."""

    seconds: float

    @property
    def price(self) -> float:
        return self.seconds


State = dict[str, Tensor]
Found = TypeVar("Found", bound=Training)


@dataclass(frozen=True)
class Results(Generic[Found]):
    """All trainings, and the questions that the tables ask of them."""

    trainings: Sequence[Found]

    @property
    def sets(self) -> list[str]:
        """The data sets."""
        return list(dict.fromkeys(each.data for each in self.trainings))

    @property
    def schedules(self) -> list[str]:
        """Those that are compared with the plan's."""
        return [name for name in dict.fromkeys(each.schedule for each in self.trainings) if name not in (HEAD, PLANNED)]

    def of(self, data: str, schedule: str) -> list[Found]:
        """The trainings of a data set with a schedule, by seed."""
        found = [each for each in self.trainings if (each.data, each.schedule) == (data, schedule)]
        return sorted(found, key=lambda each: each.seed)

    def correct(self, data: str, schedule: str, is_kept: bool) -> list[np.ndarray]:
        """0 or 100 for each test image of each seed: of the phase, or where `is_kept`, of what a run keeps."""
        pairs = zip(self.of(data, schedule), self.of(data, HEAD), strict=True)
        chosen = [phase if phase.is_kept or not is_kept else head for phase, head in pairs]
        return [100 * np.array(each.correct) for each in chosen]

    def difference(self, data: str, schedule: str, is_kept: bool) -> tuple[float, float]:
        """Mean difference of the accuracy to the plan in points, and its standard error from the test images."""
        pairs = zip(self.correct(data, schedule, is_kept), self.correct(data, PLANNED, is_kept), strict=True)
        changes = [one - other for one, other in pairs]
        errors = [change.std(ddof=1) / math.sqrt(len(change)) for change in changes]
        return statistics.mean(float(change.mean()) for change in changes), math.hypot(*errors) / len(errors)

    def ratio(self, data: str, schedule: str) -> float:
        """The price as a fraction of the plan's."""
        own, planned = (sum(each.price for each in self.of(data, name)) for name in (schedule, PLANNED))
        return own / planned


def row(*cells: str) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def means(results: Results[Found], text: Callable[[Sequence[Found]], str]) -> str:
    """Markdown: accuracy of each schedule and a text on its trainings, one row per data set."""
    names = [HEAD, PLANNED, *results.schedules]
    lines = [row("set", "splits", "test images", *names), row(*["---"] * (len(names) + 3))]
    for data in results.sets:
        cells = []
        for name in names:
            found = results.of(data, name)
            kept = f", kept in {sum(each.is_kept for each in found)}" if name != HEAD else ""
            cells.append(f"{statistics.mean(each.accuracy for each in found):.1f}{text(found)}{kept}")
        planned = results.of(data, PLANNED)
        lines.append(row(data, f"{len(planned)}", f"{len(planned[0].correct)}", *cells))
    return "\n".join(lines)


def differences(results: Results[Found], is_kept: bool) -> str:
    """Markdown: differences to the plan and ratios of the prices, one row per data set and one for their mean."""
    lines = [row("set", *results.schedules), row(*["---"] * (len(results.schedules) + 1))]
    found = {
        name: [(*results.difference(data, name, is_kept), results.ratio(data, name)) for data in results.sets]
        for name in results.schedules
    }
    for index, data in enumerate(results.sets):
        cells = (found[name][index] for name in results.schedules)
        lines.append(row(data, *(f"{change:+.1f} ± {error:.1f}, {ratio:.2f}x" for change, error, ratio in cells)))
    last = []
    for name in results.schedules:
        changes, errors, ratios = zip(*found[name], strict=True)
        error = math.hypot(*errors) / len(errors)
        last.append(f"{statistics.mean(changes):+.2f} ± {error:.2f}, {statistics.mean(ratios):.2f}x")
    return "\n".join([*lines, row("mean", *last)])


def begun(data: Path, seed: int, base: thaw.Recipe, runs: Path) -> Trial:
    """A trial that trains the head and thaws the top stages, with no cached features from before."""
    clear(cache_folder(), ("features",))
    recipe = base.model_copy(update={"seed": seed, "split": SplitSettings(seed=seed), "strategy": "top"})
    return begin(thaw.Dataset.open(data), recipe, TrialContext(runs, NullReporter()))


def with_head(trial: Trial, checkpoints: Path) -> tuple[FitContext, Progress]:
    """Train the head of a trial: the run of this phase, and its progress."""
    plan = trial.folder.read_plan()
    assert plan is not None
    settings = fit_settings(trial, checkpoints, plan.run)
    run = FitContext(trial.classifier, trial.recipe.phases[:1], settings, FitCallbacks(lambda *_: None, print))
    return run, fit(run, trial.inputs.sources_of)


def state_of(classifier: Classifier) -> State:
    """A copy of its weights."""
    return {key: value.clone() for key, value in classifier.state_dict().items()}


def epochs_of(run: FitContext, phase: ResolvedPhase, sources: PhaseSources) -> Iterator[Progress]:
    """Train a phase with early stopping alone: its progress after each epoch, whose weights the classifier has."""
    active, progress = begin_phase(run, phase, sources), Progress(phase=1, batch_size=phase.batch_size)
    while progress.epoch < phase.epochs and not should_stop(progress.records, phase, run.settings.monitor):
        active = freeze_lowest(active, sources, progress.epoch)
        record = fit_epoch(active, progress)
        progress = replace(progress, epoch=progress.epoch + 1, records=(*progress.records, record))
        yield progress


def with_schedule(phase: ResolvedPhase, epochs: int, patience: int | None) -> ResolvedPhase:
    """A phase with other epochs and patience, which freezes its lowest stage again as the plan does for so many."""
    after = phase.freeze_after
    if after and epochs != phase.epochs:
        after = epochs_before_freezing(epochs)
    return phase.model_copy(update={"epochs": epochs, "patience": patience, "freeze_after": after})


def is_kept(head: Progress, best: EpochRecord, rule: KeepRule) -> bool:
    """Whether a run keeps a phase in place of the head, by the best epoch of that phase."""
    gain = phase_gain((*head.records, best), best.phase, head.gains, rule)
    return gain is not None and gain.is_kept


def sources_of_test(trial: Trial, phase: str) -> EvaluationSources:
    """The inputs of test images at the cut of a phase."""
    found = trial.inputs.evaluation_sources([phase], ("test",))
    assert found is not None
    return found


def correct_on(classifier: Classifier, test: EvaluationSources, precision: Precision) -> tuple[int, ...]:
    """0 or 1 for each test image."""
    probabilities, targets = probabilities_at(classifier, test.position, test.of_split["test"], precision)
    return tuple((probabilities.argmax(axis=1) == targets).astype(int).tolist())


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """The arguments that every comparison of schedules takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", help="none: only the table of what is in FOLDER")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings common to all trainings")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    return parser


def trained(
    arguments: argparse.Namespace, log: str, kind: type[Found], train: Callable[[Trial], Iterable[Found]]
) -> Results[Found]:
    """The trainings of all data sets and seeds: those that are in `log` already, and the others, which are added.

    `train` gives all trainings of a trial, without the name of the data set.
    """
    base = thaw.Recipe().with_settings(parsed_settings(arguments.set))
    if arguments.data:
        use_work_folder(arguments.work, arguments.set)
    if arguments.seeds > 1 and (fixed := [each for each in arguments.data if _has_fixed_splits(each)]):
        raise SystemExit(
            f"{fixed[0]}: all seeds have its splits, and so the same test images; use --seeds 1 or {{seed}}"
        )
    file = arguments.work / log
    trainings = [kind(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(each.data, each.seed) for each in trainings}
    for seed, pattern in product(range(arguments.seeds), arguments.data):
        data, name = Path(pattern.replace("{seed}", str(seed))), Path(pattern).stem.replace("{seed}", "").strip("-_")
        if (name, seed) in done:
            continue
        runs = arguments.work / "runs"
        shutil.rmtree(runs, ignore_errors=True)
        found = [replace(each, data=name) for each in train(begun(data, seed, base, runs))]
        trainings += found
        with file.open("a") as stream:
            stream.writelines(json.dumps(asdict(each)) + "\n" for each in found)
        print(*(f"{name} {seed} {each.schedule}: {each.accuracy:.1f}" for each in found), sep="\n", flush=True)
    return Results(trainings)


def _has_fixed_splits(pattern: str) -> bool:
    """Whether a data set says itself which images are for testing, whatever the seed."""
    return "{seed}" not in pattern and any(thaw.Dataset.open(pattern).manifest.column("split"))


def show_differences(results: Results[Found]) -> None:
    """Print the tables of differences."""
    print(
        "\nStandard errors take test images as independent; those of several splits overlap, so that theirs are larger."
    )
    print(f"\nThe phase itself:\n\n{differences(results, is_kept=False)}")
    print(f"\nWhat a run keeps, the phase or the head:\n\n{differences(results, is_kept=True)}")
