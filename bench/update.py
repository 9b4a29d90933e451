"""Classes that arrive one after the other, with the old images gone: `thaw update` against training on everything.

    python -m bench.update IMAGES --base 4 --seeds 0 1 2 --set backbone=starter preprocessing.image_size=128

IMAGES has one folder per class. Per seed the classes are shuffled and 30 % of the images of each held out, half of them
for validation. A run is trained on the first classes, and each further class is then learnt in turn, from copies that
are removed before the next class arrives. At each step, from the same run:

    update      `thaw update` with the images of the new class
    new only    the phases of the update on the images of the new class alone, without the old features
    afresh      `thaw train` on the images of all classes so far

Accuracy is on the test images of the old classes, of the new class, and of all. Seconds are from the first image to the
bundle, with an empty cache for `afresh`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from thaw.cli.parsing import parsed_settings
from thaw.csv_text import csv_text
from thaw.data.dataset import Dataset
from thaw.errors import UpdateError
from thaw.evaluation.records import read_records
from thaw.formats import percent
from thaw.pipeline import finetune, update
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder
from thaw.training.context import FitCallbacks, FitContext
from thaw.training.fit import fit
from thaw.training.outputs import outputs_at
from thaw.updating.learner import Learner, old_sources
from thaw.updating.new_images import open_new, prepare_new
from thaw.updating.phases import update_recipe
from thaw.updating.stored_run import StoredRun

HELD_OUT = 0.3
QUIET = NullReporter()


@dataclass(frozen=True)
class Step:
    """Accuracy on test images after one class more, and what it took."""

    seed: int
    step: int
    method: str
    old: float
    new: float
    every: float
    seconds: float


@dataclass(frozen=True)
class Bench:
    """The images of each class, in the order in which the classes arrive, and how runs are trained."""

    seed: int
    base: int
    images: dict[str, list[Path]]
    recipe: Recipe
    folder: Path
    methods: Sequence[str]

    @property
    def classes(self) -> list[str]:
        """The classes in the order in which they arrive."""
        return list(self.images)

    def table(self, name: str, classes: Sequence[str]) -> Path:
        """A table of copies of the images of some classes, in a folder of its own, with fixed splits."""
        folder = self.folder / name
        rows: list[Sequence[object]] = [("path", "label", "split")]
        for label in classes:
            (folder / label).mkdir(parents=True)
            for number, image in enumerate(self.images[label]):
                shutil.copy(image, folder / label)
                rows.append((f"{label}/{image.name}", label, _split(number, len(self.images[label]))))
        file = folder / "images.csv"
        file.write_text(csv_text(rows), encoding="utf-8")
        return file

    def steps(self) -> list[Step]:
        """Every step by every method."""
        self._use_cache("cache")
        table = self.table("first", self.classes[: self.base])
        found, runs = [], self.folder / "runs"
        seconds = _seconds(lambda: finetune(table, self.recipe, runs, reporter=QUIET))
        run = RunFolder(runs / "train-1")
        found.append(Step(self.seed, 0, "first run", *_accuracy(run, self.classes[: self.base], ""), seconds))
        shutil.rmtree(table.parent)
        for step, added in enumerate(self.classes[self.base :], 1):
            old = self.classes[: self.base + step - 1]
            table = self.table(f"new-{step}", [added])
            if "new-only" in self.methods:
                found.append(self._new_only(step, run, table, old, added))
            seconds = _seconds(partial(self._update, run, table))
            run = RunFolder.newest_first(runs)[0]
            found.append(Step(self.seed, step, "update", *_accuracy(run, old, added), seconds))
            shutil.rmtree(table.parent)
            if "afresh" in self.methods:
                found.append(self._afresh(step, old, added))
        return found

    def _use_cache(self, name: str) -> None:
        os.environ["THAW_CACHE"] = str(self.folder / name)

    def _update(self, run: RunFolder, table: Path) -> None:
        try:
            update(run.path, table, reporter=QUIET)
        except UpdateError as error:
            print(f"seed {self.seed}: {error}", file=sys.stderr)

    def _afresh(self, step: int, old: Sequence[str], added: str) -> Step:
        table, runs = self.table(f"all-{step}", [*old, added]), self.folder / f"afresh-{step}"
        self._use_cache(f"cache-{step}")
        seconds = _seconds(lambda: finetune(table, self.recipe, runs, reporter=QUIET))
        shutil.rmtree(self.folder / f"cache-{step}")
        self._use_cache("cache")
        shutil.rmtree(table.parent)
        return Step(self.seed, step, "afresh", *_accuracy(RunFolder(runs / "train-1"), old, added), seconds)

    def _new_only(self, step: int, folder: RunFolder, table: Path, old: Sequence[str], added: str) -> Step:
        """The phases of the update on the new images alone, validated on these, from the weights of the run."""
        started = time.perf_counter()
        run = StoredRun.read(folder)
        new = prepare_new(run, open_new(run, Dataset.open(table, "multiclass", run.classifier.classes), QUIET), QUIET)
        recipe = update_recipe(run, "multiclass")
        learner = Learner.of(run, new, recipe, {}, QUIET)
        settings = replace(learner.fit_settings(""), checkpoints=self.folder / f"new-only-{step}")
        callbacks = FitCallbacks(lambda records, is_best: None, lambda note: None)
        fit(FitContext(learner.classifier, recipe.phases, settings, callbacks), learner.phase_sources)
        seconds = time.perf_counter() - started
        sources = [*old_sources(run, QUIET)["test"], learner.sources["test"]]
        outputs = [outputs_at(learner.classifier, run.position, source, "fp32") for source in sources]
        correct = [found.probabilities.argmax(axis=1) == found.targets for found in outputs]
        before, after = np.concatenate(correct[:-1]), correct[-1]
        every = np.concatenate(correct)
        return Step(self.seed, step, "new only", before.mean(), after.mean(), every.mean(), seconds)


def _split(number: int, images: int) -> str:
    """The split of a shuffled image by its number."""
    held_out = round(HELD_OUT * images)
    return "train" if number >= held_out else "val" if number < held_out // 2 else "test"


def _accuracy(run: RunFolder, old: Sequence[str], added: str) -> tuple[float, float, float]:
    """Accuracy on the test images of the old classes, of the new class, and of all."""
    found = read_records(run.predictions, "test")
    scored = found.scored
    labels = np.array(found.classes)[scored.truth.argmax(axis=1)]
    is_old = np.isin(labels, old)
    new = float(scored.correct[labels == added].mean()) if added else float("nan")
    return float(scored.correct[is_old].mean()), new, float(scored.correct.mean())


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _shown(steps: Sequence[Step]) -> list[str]:
    """A Markdown table: means over the seeds, and the standard deviation of the accuracy on old classes."""
    lines = ["| step | | old classes | new class | all | seconds |", "| --- | --- | --- | --- | --- | --- |"]
    for key in dict.fromkeys((step.step, step.method) for step in steps):
        own = [step for step in steps if (step.step, step.method) == key]
        old, new, every, seconds = (
            np.array([getattr(step, name) for step in own]) for name in ("old", "new", "every", "seconds")
        )
        shown = "-" if np.isnan(new).any() else percent(new.mean())
        spread = f" ± {100 * old.std(ddof=1):.1f}" if len(own) > 1 else ""
        lines.append(
            f"| {key[0]} | {key[1]} | {percent(old.mean())}{spread} | {shown} | {percent(every.mean())} | "
            f"{seconds.mean():.0f} |"
        )
    return lines


def main() -> None:
    """Run it on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--base", type=int, default=4, help="classes of the first run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", nargs="+", default=[], help="settings of the recipe, KEY=VALUE")
    parser.add_argument("--most", type=int, default=10_000, help="most images of a class")
    parser.add_argument("--methods", nargs="+", default=["new-only", "afresh"], help="besides the update")
    wanted = parser.parse_args()
    steps: list[Step] = []
    for seed in wanted.seeds:
        generator = np.random.default_rng(seed)
        folders = sorted(folder for folder in wanted.images.iterdir() if folder.is_dir())
        images = {}
        for index in generator.permutation(len(folders)):
            files = sorted(folders[index].iterdir())
            images[folders[index].name] = [files[place] for place in generator.permutation(len(files))][: wanted.most]
        recipe = Recipe().with_settings({"seed": seed, **parsed_settings(wanted.set)})
        with TemporaryDirectory() as folder:
            steps += Bench(seed, wanted.base, images, recipe, Path(folder), wanted.methods).steps()
        print("\n".join([f"seeds up to {seed}", *_shown(steps)]), flush=True)


if __name__ == "__main__":
    main()
