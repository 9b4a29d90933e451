"""When to keep a deeper phase: test results and training time of four rules, from one training per data set and seed.

    python -m bench.deeper steel/ insects/ cells.csv --work FOLDER --seeds 3 --set weights=mobilenetv2_100.safetensors

Trains the head, the top stages and the stages below them one after the other, whatever each of them gained, and keeps
the probabilities on validation and test at the best epoch of each phase. From these follows what each rule would have
trained and kept. Trainings that are already in `FOLDER` are not repeated. Prints, for each data set, the mean of the
monitored metric on test and the mean time of extraction and training; then the same for smaller validation sets, drawn
from the whole one, which costs no training.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import thaw
from thaw.cache import cache_folder, clear
from thaw.cli.parsing import parsed_settings
from thaw.metrics import METRICS, measure, most_likely, values_without_each
from thaw.progress import NullReporter
from thaw.recipe import Phase, SplitSettings
from thaw.training.context import FitCallbacks, FitContext, FitSettings
from thaw.training.fit import fit
from thaw.training.gain import kept_record
from thaw.training.history import EpochRecord
from thaw.training.outputs import probabilities_at
from thaw.training.skipping import reason_to_skip
from thaw.trial import begin, fit_settings

DRAWS = 100
"""Smaller validation sets drawn from each whole one."""


@dataclass(frozen=True)
class Outcome:
    """Probabilities on validation and test at the best epoch of a phase, and its seconds of extraction and training."""

    val: np.ndarray
    test: np.ndarray
    seconds: float


@dataclass(frozen=True)
class Training:
    """One training of all phases. targets, groups: of the validation images."""

    data: str
    monitor: str
    outcomes: Sequence[Outcome]
    targets: np.ndarray
    groups: np.ndarray
    test_targets: np.ndarray

    @classmethod
    def read(cls, file: Path) -> Training:
        found = np.load(file)
        phases = range(sum(name.endswith("_val") for name in found))
        outcomes = [
            Outcome(*(found[f"{i}_{split}"] for split in ("val", "test")), found[f"{i}_seconds"].sum()) for i in phases
        ]
        data, targets = file.stem.rpartition("-")[0], (found["val_targets"], found["test_targets"])
        return cls(data, str(found["monitor"]), outcomes, targets[0], found["groups"], targets[1])

    def with_validation(self, images: np.ndarray) -> Training:
        """The same with a part of its validation images."""
        outcomes = [replace(outcome, val=outcome.val[images]) for outcome in self.outcomes]
        return replace(self, outcomes=outcomes, targets=self.targets[images], groups=self.groups[images])

    def record(self, index: int, has_standard_error: bool) -> EpochRecord:
        """What the run would have recorded of the best epoch of a phase."""
        probabilities, metric = self.outcomes[index].val, METRICS[self.monitor]
        scored = most_likely(probabilities, self.targets, "multiclass", self.groups)
        without = values_without_each(scored, metric) if has_standard_error else ()
        val = measure(probabilities, self.targets, "multiclass")
        return EpochRecord(f"{index}", 1, "", None, 0.0, val, 0.0, without=without)

    def test_value(self, index: int) -> float:
        return measure(self.outcomes[index].test, self.test_targets, "multiclass")[self.monitor]


Kept = tuple[int, Sequence[int]]
"""The phase that is kept, and the phases that are trained for that."""


def by_validation(training: Training, has_standard_error: bool) -> Kept:
    """As a run decides; without a standard error for each gain as release 0.1 did."""
    phases = [
        Phase(name=f"{index}", cut="head", epochs=1, lr=1.0, optional=index > 0)
        for index in range(len(training.outcomes))
    ]
    images = len(training.targets)
    settings = FitSettings(0, "fp32", training.monitor, None, Path(), images)
    records: list[EpochRecord] = []
    for index in range(len(phases)):
        if reason_to_skip(records, phases, index, settings) is None:
            records.append(training.record(index, has_standard_error))
    kept = kept_record(records, training.monitor, images)
    assert kept is not None
    return int(kept.phase), [int(record.phase) for record in records]


RULES: dict[str, Callable[[Training], Kept]] = {
    "never deeper": lambda training: (0, [0]),
    "more than nothing": lambda training: by_validation(training, has_standard_error=False),
    "more than one standard error": lambda training: by_validation(training, has_standard_error=True),
    "always deepest": lambda training: (len(training.outcomes) - 1, range(len(training.outcomes))),
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
    trial = begin(thaw.Dataset.open(data), recipe, runs, NullReporter())
    plan = trial.folder.read_plan()
    assert plan is not None
    settings, inputs, classifier = fit_settings(trial, plan), trial.inputs, trial.classifier
    images = len(inputs.val.rows)
    groups = np.arange(images) if settings.val_groups is None else settings.val_groups
    found = {"groups": groups, "monitor": np.array(settings.monitor)}
    for index, phase in enumerate(trial.recipe.phases):
        started = time.perf_counter()
        sources = inputs.sources_of(index)
        callbacks = FitCallbacks(lambda *_: None, print)
        own = replace(settings, checkpoints=runs / phase.name, phase_seconds=())
        fit(FitContext(classifier, (phase,), own, callbacks), lambda _, sources=sources: sources)
        found[f"{index}_seconds"] = np.array([time.perf_counter() - started])
        final = inputs.evaluation_sources([phase.name])
        assert final is not None
        for split, source in (("val", final.val), ("test", final.test)):
            outputs = probabilities_at(classifier, final.position, source, settings.precision)
            found[f"{index}_{split}"], found[f"{split}_targets"] = outputs
    shutil.rmtree(runs)
    with file.with_suffix(".tmp").open("wb") as stream:
        np.savez(stream, **found)
    file.with_suffix(".tmp").replace(file)
    return file


def cell(trainings: Sequence[Training], rule: Callable[[Training], Kept]) -> str:
    """Mean value on test in percent, its standard deviation, and mean seconds."""
    decisions = [rule(training) for training in trainings]
    values = [100 * training.test_value(kept) for training, (kept, _) in zip(trainings, decisions, strict=True)]
    seconds = statistics.mean(
        sum(training.outcomes[index].seconds for index in trained)
        for training, (_, trained) in zip(trainings, decisions, strict=True)
    )
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ({spread:.1f}), {seconds:.0f} s"


def table(trainings: Sequence[Training]) -> str:
    """Markdown: one row per data set, one column per rule."""
    lines = ["| set | trainings | metric | " + " | ".join(RULES) + " |", "| --- " * (len(RULES) + 3) + "|"]
    by_set = defaultdict(list)
    for training in trainings:
        by_set[training.data].append(training)
    for data, found in by_set.items():
        cells = [cell(found, rule) for rule in RULES.values()]
        lines.append(f"| {data} | {len(found)} | {METRICS[found[0].monitor].title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def smaller(training: Training, images: int) -> list[Training]:
    """The same training with `DRAWS` smaller validation sets, none where there are not more images."""
    rng = np.random.default_rng(0)
    total = len(training.targets)
    return [
        training.with_validation(rng.choice(total, images, replace=False))
        for _ in range(DRAWS if total > images else 0)
    ]


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
    arguments.work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("THAW_CACHE", str(arguments.work / "cache"))
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
