"""How many epochs a thawed phase needs: test accuracy and CPU time of shorter schedules, from the same head.

    python -m bench.epochs ants-{seed}.csv cells-{seed}.csv --work FOLDER --seeds 2 --set weights=model.safetensors

`{seed}` in a path is replaced by each seed. The head is trained, the features at the first thawed cut are extracted,
and the phase that thaws is trained from that head as the plan has it, and with each of `--epochs`, whose schedules end
with the last epoch and are not stopped early. Every training ends with its best epoch on validation. Trainings that are
already in `FOLDER/epochs.jsonl` are skipped.

Prints, for each data set, the mean test accuracy, CPU seconds and epochs of each schedule, and how often a run would
keep the phase; then the differences to the plan on the same test images with their standard errors, and the ratios of
the CPU seconds. Use one thread: the CPU seconds of several also count their waiting.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

import thaw
from thaw.cache import cache_folder, clear
from thaw.cli.parsing import parsed_settings
from thaw.progress import NullReporter
from thaw.recipe import Phase, SplitSettings
from thaw.training.context import FitCallbacks, FitContext, FitSettings
from thaw.training.fit import fit
from thaw.training.outputs import probabilities_at
from thaw.trial import Trial, TrialContext, begin, fit_settings

HEAD, PLANNED = "head", "planned"


@dataclass(frozen=True)
class Training:
    """One training of one phase.

    schedule: `HEAD`, `PLANNED`, or a number of epochs. epochs: how many were trained. seconds: of CPU time. is_kept:
    whether a run keeps the phase in place of the head. correct: 0 or 1 for each test image.
    """

    data: str
    seed: int
    schedule: str
    epochs: int
    seconds: float
    is_kept: bool
    correct: tuple[int, ...]

    @property
    def accuracy(self) -> float:
        """On test, in percent."""
        return 100 * statistics.mean(self.correct)


def schedules(phase: Phase, epochs: Sequence[int]) -> Iterator[tuple[str, Phase]]:
    """The phase as planned, and with other numbers of epochs, all of which are trained."""
    phase = phase.model_copy(update={"optional": False})
    yield PLANNED, phase
    for number in epochs:
        yield str(number), phase.model_copy(update={"epochs": number, "patience": None})


def train(data: Path, seed: int, base: thaw.Recipe, epochs: Sequence[int], runs: Path) -> Iterator[Training]:
    """The head, then the phase that thaws with each schedule, each from the weights that the head phase has left."""
    clear(cache_folder(), ("features",))
    recipe = base.model_copy(update={"seed": seed, "split": SplitSettings(seed=seed), "strategy": "top"})
    trial = begin(thaw.Dataset.open(data), recipe, TrialContext(runs, NullReporter()))
    plan = trial.folder.read_plan()
    assert plan is not None
    settings = fit_settings(trial, trial.folder.checkpoints, plan.run)
    head, thawed = trial.recipe.phases[:2]
    yield _trained(trial, HEAD, (head,), settings)
    state = {key: value.clone() for key, value in trial.classifier.state_dict().items()}
    trial.inputs.sources_of(1)
    for name, phase in schedules(thawed, epochs):
        trial.classifier.load_state_dict(state)
        shutil.copytree(settings.checkpoints / HEAD, settings.checkpoints / name)
        yield _trained(trial, name, (head, phase), settings)


def _trained(trial: Trial, name: str, phases: Sequence[Phase], settings: FitSettings) -> Training:
    """The last of some phases, trained from what the others have left in the checkpoints of that name, and tested."""
    own = replace(settings, checkpoints=settings.checkpoints / name, phase_seconds=())
    context = FitContext(trial.classifier, phases, own, FitCallbacks(lambda *_: None, print))
    started = time.process_time()
    progress = fit(context, trial.inputs.sources_of)
    seconds = time.process_time() - started
    # Its best epoch, whether or not it is kept.
    context.checkpoints.load("phase")
    final = trial.inputs.evaluation_sources([phases[-1].name], ("test",))
    assert final is not None
    outputs = probabilities_at(trial.classifier, final.position, final.of_split["test"], settings.precision)
    correct = tuple((outputs[0].argmax(axis=1) == outputs[1]).astype(int).tolist())
    epochs = sum(record.phase == phases[-1].name for record in progress.records)
    return Training("", trial.recipe.seed, name, epochs, seconds, progress.gains[-1].is_kept, correct)


@dataclass(frozen=True)
class Results:
    """All trainings, and the questions that the tables ask of them."""

    trainings: Sequence[Training]

    @property
    def sets(self) -> list[str]:
        """The data sets."""
        return list(dict.fromkeys(each.data for each in self.trainings))

    @property
    def schedules(self) -> list[str]:
        """The shorter schedules."""
        return [name for name in dict.fromkeys(each.schedule for each in self.trainings) if name not in (HEAD, PLANNED)]

    def of(self, data: str, schedule: str) -> list[Training]:
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
        """CPU seconds as a fraction of the plan's."""
        shorter, planned = (sum(each.seconds for each in self.of(data, name)) for name in (schedule, PLANNED))
        return shorter / planned


def row(*cells: str) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def means(results: Results) -> str:
    """Markdown: accuracy, CPU seconds and epochs of each schedule, one row per data set."""
    names = [HEAD, PLANNED, *results.schedules]
    lines = [row("set", "splits", "test images", *names), row(*["---"] * (len(names) + 3))]
    for data in results.sets:
        cells = []
        for name in names:
            found = results.of(data, name)
            kept = f", kept in {sum(each.is_kept for each in found)}" if name != HEAD else ""
            accuracy, seconds, epochs = (
                statistics.mean(getattr(each, what) for each in found) for what in ("accuracy", "seconds", "epochs")
            )
            cells.append(f"{accuracy:.1f}, {seconds:.1f} s, {epochs:.1f}{kept}")
        planned = results.of(data, PLANNED)
        lines.append(row(data, f"{len(planned)}", f"{len(planned[0].correct)}", *cells))
    return "\n".join(lines)


def differences(results: Results, is_kept: bool) -> str:
    """Markdown: differences to the plan and ratios of the CPU seconds, one row per data set and one for their mean."""
    lines = [row("set", *results.schedules), row(*["---"] * (len(results.schedules) + 1))]
    found = {
        name: [(*results.difference(data, name, is_kept), results.ratio(data, name)) for data in results.sets]
        for name in results.schedules
    }
    for index, data in enumerate(results.sets):
        cells = (found[name][index] for name in results.schedules)
        lines.append(row(data, *(f"{change:+.1f} ± {error:.1f}, {ratio:.2f}x" for change, error, ratio in cells)))
    cells = []
    for name in results.schedules:
        changes, errors, ratios = zip(*found[name], strict=True)
        error = math.hypot(*errors) / len(errors)
        cells.append(f"{statistics.mean(changes):+.2f} ± {error:.2f}, {statistics.mean(ratios):.2f}x")
    return "\n".join([*lines, row("mean", *cells)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", help="none: only the table of what is in FOLDER")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings common to all trainings")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, nargs="+", default=[8, 6, 4])
    arguments = parser.parse_args()
    base = thaw.Recipe().with_settings(parsed_settings(arguments.set))
    arguments.work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("THAW_CACHE", str(arguments.work / "cache"))
    log = arguments.work / "epochs.jsonl"
    trainings = [Training(**json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(each.data, each.seed) for each in trainings}
    for seed, pattern in product(range(arguments.seeds), arguments.data):
        data, name = Path(pattern.replace("{seed}", str(seed))), Path(pattern).stem.replace("{seed}", "").strip("-_")
        if (name, seed) in done:
            continue
        runs = arguments.work / "runs"
        shutil.rmtree(runs, ignore_errors=True)
        found = [replace(each, data=name) for each in train(data, seed, base, arguments.epochs, runs)]
        trainings += found
        with log.open("a") as stream:
            stream.writelines(json.dumps(asdict(each)) + "\n" for each in found)
        print(
            *(f"{name} {seed} {each.schedule}: {each.accuracy:.1f}, {each.seconds:.1f} s" for each in found), sep="\n"
        )
        print(flush=True)
    results = Results(trainings)
    print(means(results))
    print(f"\nThe phase itself:\n\n{differences(results, is_kept=False)}")
    print(f"\nWhat a run keeps, the phase or the head:\n\n{differences(results, is_kept=True)}")


if __name__ == "__main__":
    main()
