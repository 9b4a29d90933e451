"""When to keep a deeper phase: test results and training time of several rules, from one training per set and seed.

    python -m bench.deeper steel/ insects/ cells.csv --work FOLDER --seeds 3 --set weights=mobilenetv2_100.safetensors

Trains the head, the top stages and the stages below them one after the other, whatever each of them gained, and keeps
the probabilities on validation and test at the best epoch of each phase. From these follows what each rule would have
trained and kept. Trainings that are already in `FOLDER` are not repeated. Prints, for each data set, the mean of the
monitored metric on test and the mean time of extraction and training; then the same for smaller validation sets, drawn
from the whole one, which costs no training.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import thaw
from bench.work_folder import use_work_folder
from thaw.cache import cache_folder, clear
from thaw.cli.parsing import parsed_settings
from thaw.metrics import METRICS, measure, most_likely, values_without_each
from thaw.progress import NullReporter
from thaw.recipe import KeepPhase, Phase, SplitSettings
from thaw.training.checkpoint import Progress
from thaw.training.context import FitCallbacks, FitContext, FitSettings
from thaw.training.fit import fit
from thaw.training.gain import PhaseGain, kept_record, phase_gain
from thaw.training.history import EpochRecord
from thaw.training.outputs import probabilities_at
from thaw.training.skipping import reason_to_skip
from thaw.training.sources import PhaseSources, Source
from thaw.trial import Trial, TrialContext, begin, fit_settings

DRAWS = 100
"""Smaller validation sets drawn from each whole one."""

SETTINGS = FitSettings(0, "fp32", "accuracy", None, Path(), 1)

Kept = tuple[int, Sequence[int]]
"""The phase that is kept, and the phases that are trained."""


@dataclass(frozen=True)
class Validation:
    """Validation images, and the probabilities on them at the best epoch of each phase."""

    targets: np.ndarray
    groups: np.ndarray
    probabilities: tuple[np.ndarray, ...]

    def part(self, images: np.ndarray) -> Validation:
        """The same for some of the images."""
        return Validation(self.targets[images], self.groups[images], tuple(each[images] for each in self.probabilities))

    def record(self, index: int, monitor: str) -> EpochRecord:
        """What a run records of the best epoch of a phase."""
        scored = most_likely(self.probabilities[index], self.targets, "multiclass", self.groups)
        without = values_without_each(scored, METRICS[monitor])
        val = measure(self.probabilities[index], self.targets, "multiclass")
        return EpochRecord(f"{index}", 1, "", None, 0.0, val, 0.0, without=without)


@dataclass(frozen=True)
class Training:
    """One training of all phases. test: value of each phase; seconds: of each phase."""

    data: str
    monitor: str
    val: Validation
    test: tuple[float, ...]
    seconds: tuple[float, ...]

    @classmethod
    def read(cls, file: Path) -> Training:
        found, phases = np.load(file), range(3)
        monitor = str(found["monitor"])
        val = Validation(
            found["val_targets"],
            found["val_groups"],
            tuple(found[f"val_{index}"] for index in phases if f"val_{index}" in found),
        )
        return cls(
            data=file.stem.rpartition("-")[0],
            monitor=monitor,
            val=val,
            test=tuple(
                measure(found[f"test_{index}"], found["test_targets"], "multiclass")[monitor]
                for index in range(len(val.probabilities))
            ),
            seconds=tuple(found["val_seconds"].tolist()),
        )


def by_validation(training: Training, keep: KeepPhase) -> Kept:
    """As a run decides."""
    count, monitor = len(training.test), training.monitor
    phases = [Phase(name=f"{index}", cut="head", epochs=1, lr=1.0, optional=index > 0) for index in range(count)]
    settings = replace(SETTINGS, monitor=monitor, val_images=len(training.val.targets), keep_phase=keep)
    records: list[EpochRecord] = []
    gains: list[PhaseGain] = []
    for index in range(count):
        if reason_to_skip(records, gains, phases, index, settings):
            continue
        records.append(training.val.record(index, monitor))
        gain = phase_gain(records, f"{index}", gains, settings.keep_rule)
        assert gain is not None
        gains.append(gain)
    kept = kept_record(records, gains, monitor)
    assert kept is not None
    return int(kept.phase), [int(record.phase) for record in records]


RULES: dict[str, Callable[[Training], Kept]] = {
    "never": lambda training: (0, [0]),
    "any gain": lambda training: by_validation(training, "any_gain"),
    "one standard error": lambda training: by_validation(training, "standard_error"),
    "always deepest": lambda training: (len(training.test) - 1, range(len(training.test))),
}


def train(data: Path, seed: int, base: thaw.Recipe, work: Path) -> Path:
    """Train every phase; gives the file of the probabilities."""
    file = work / f"{data.stem}-{seed}.npz"
    if file.exists():
        return file
    clear(cache_folder(), ("features",))
    recipe = base.model_copy(update={"seed": seed, "split": SplitSettings(seed=seed), "strategy": "top"})
    runs = work / f"{data.stem}-{seed}"
    shutil.rmtree(runs, ignore_errors=True)
    trial = begin(thaw.Dataset.open(data), recipe, TrialContext(runs, NullReporter()))
    plan = trial.folder.read_plan()
    assert plan is not None
    settings, inputs = fit_settings(trial, trial.folder.checkpoints, plan.run), trial.inputs
    found: dict[str, Any] = {"monitor": np.array(settings.monitor)}

    def keep(split: str, index: int, position: int, source: Source, seconds: float) -> None:
        """The probabilities and the time of one phase."""
        outputs = probabilities_at(trial.classifier, position, source, settings.precision)
        found[f"{split}_{index}"], found[f"{split}_targets"] = outputs
        found[f"{split}_seconds"] = np.append(found.get(f"{split}_seconds", ()), seconds)

    for index, position, sources, seconds in phase_by_phase(trial, settings):
        assert sources.val is not None
        keep("val", index, position, sources.val, seconds)
        final = inputs.evaluation_sources([trial.recipe.phases[index].name], ("test",))
        assert final is not None
        keep("test", index, final.position, final.of_split["test"], 0.0)
    images = np.arange(len(inputs.val.rows))
    found["val_groups"] = images if settings.val_groups is None else settings.val_groups
    shutil.rmtree(runs)
    with file.with_suffix(".tmp").open("wb") as stream:
        np.savez(stream, **found)
    file.with_suffix(".tmp").replace(file)
    return file


def _same(sources: PhaseSources, _: int) -> PhaseSources:
    return sources


def phase_by_phase(trial: Trial, settings: FitSettings) -> Iterator[tuple[int, int, PhaseSources, float]]:
    """Each phase after it was trained from the one before: its index, cut, sources and seconds."""
    classifier = trial.classifier
    for index, phase in enumerate(trial.recipe.phases):
        started = time.perf_counter()
        sources = trial.inputs.sources_of(index)
        own = replace(settings, checkpoints=settings.checkpoints / phase.name, phase_seconds=())
        context = FitContext(classifier, (phase,), own, FitCallbacks(lambda *_: None, print))
        if index:
            # As in a run, only the first phase begins anew, with a standardisation of the head that stays.
            context.checkpoints.save("best", Progress())
        fit(context, partial(_same, sources))
        yield index, classifier.backbone.cut(phase.cut).position, sources, time.perf_counter() - started


def cell(trainings: Sequence[Training], rule: Callable[[Training], Kept]) -> str:
    """Mean value on test in percent, its standard deviation, and mean seconds."""
    values, seconds = [], []
    for training in trainings:
        kept, trained = rule(training)
        values.append(100 * training.test[kept])
        seconds.append(sum(training.seconds[index] for index in trained))
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ({spread:.1f}), {statistics.mean(seconds):.0f} s"


def table(trainings: Sequence[Training]) -> str:
    """Markdown: one row per data set, one column per rule."""
    lines = ["| set | trainings | val | metric | " + " | ".join(RULES) + " |", "| --- " * (len(RULES) + 4) + "|"]
    by_set = defaultdict(list)
    for training in trainings:
        by_set[training.data].append(training)
    for data, found in by_set.items():
        cells = [cell(found, rule) for rule in RULES.values()]
        images, metric = len(found[0].val.targets), METRICS[found[0].monitor].title
        lines.append(f"| {data} | {len(found)} | {images} | {metric} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def smaller(training: Training, images: int) -> list[Training]:
    """The same training with `DRAWS` smaller validation sets, none where there are not more images."""
    rng = np.random.default_rng(0)
    total = len(training.val.targets)
    draws = [rng.choice(total, images, replace=False) for _ in range(DRAWS if total > images else 0)]
    return [replace(training, val=training.val.part(drawn)) for drawn in draws]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="*", help="none: only the tables of what is in FOLDER")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings common to all trainings")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--val-images", type=int, nargs="*", default=[200, 100, 50])
    arguments = parser.parse_args()
    base = thaw.Recipe().with_settings(parsed_settings(arguments.set))
    if arguments.data:
        use_work_folder(arguments.work, arguments.set)
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for data in arguments.data:
            print(train(data, seed, base, arguments.work), flush=True)
    trainings = [Training.read(file) for file in sorted(arguments.work.glob("*.npz"))]
    print(table(trainings))
    for images in arguments.val_images:
        print(f"\nWith {images} validation images:\n")
        print(table([part for training in trainings for part in smaller(training, images)]))


if __name__ == "__main__":
    main()
