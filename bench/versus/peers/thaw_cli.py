"""Thaw from its command line in a fresh process with an empty cache; then one more trial at another learning rate.

Thaw keeps its own learning rates, optimizer and schedule, as fastai does; epochs, batch size, cut, dropout and
augmentation are those of the job, and no epoch is saved by early stopping.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from bench.versus import interface
from bench.versus.jobs import BATCH_SIZE, DROPOUT
from bench.versus.memory import PeakMemory

PHASES = {"head": "phase1", "fine-tune": "phase2"}
RATES, OTHER_RATES = (3e-3, 3e-4), (1e-3, 1e-4)
"""Thaw's defaults, and the settings of the second trial."""


@dataclass
class Trial:
    """One run of `thaw train` and its results."""

    folder: Path
    wall: float
    peak: PeakMemory


def given(arguments: Namespace) -> dict[str, object]:
    """What every recipe says."""
    weights = arguments.weights.absolute()
    network = {"backbone": arguments.backbone, "weights": str(weights)}
    if weights.suffix == ".keras":
        network = {"backbone": str(weights)}
    return {**network, "seed": arguments.seed, "precision": arguments.precision}


def recipe(arguments: Namespace, rates: tuple[float, float]) -> dict[str, object]:
    """The job as a recipe."""
    shared = {"batch_size": BATCH_SIZE, "patience": None}
    phases = [{"name": "head", "cut": "head", "epochs": arguments.epochs_head, "lr": rates[0], **shared}]
    if arguments.epochs_top:
        top = {"name": "fine-tune", "cut": interface.facts_of(arguments).cut, "epochs": arguments.epochs_top}
        phases.append({**top, "lr": rates[1], "warmup_epochs": 1, "layer_decay": 0.8, **shared})
    return {
        **given(arguments),
        "class_weights": "none",
        "monitor": "accuracy",
        "augment": {"preset": "standard"},
        "head": {"dropout": DROPOUT},
        "phases": phases,
    }


def write_table(arguments: Namespace, file: Path) -> None:
    """The rows that every peer trains on, with absolute paths."""
    splits, classes = interface.read_rows(arguments.table, arguments.limit)
    rows = [(str(path.resolve()), classes[target], split) for split, part in splits.items() for path, target in part]
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("path", "label", "split"), *rows])


def train(name: str, work: Path, values: dict[str, object]) -> Trial:
    """Run `thaw train` to its end, monitored from outside."""
    file = work / f"{name}.yaml"
    file.write_text(json.dumps(values), encoding="utf-8")
    command = [str(Path(sys.executable).with_name("thaw")), "train", str(work / "table.csv")]
    command += ["--recipe", str(file), "--runs", str(work / name)]
    started = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, "THAW_CACHE": str(work / "cache")})
    with PeakMemory(process.pid) as peak:
        status = process.wait()
    if status:
        raise SystemExit(f"thaw ended with {status}: {' '.join(command)}")
    return Trial(next((work / name).iterdir()), time.perf_counter() - started, peak)


def read_times(trial: Trial, outcome: interface.Measurements) -> None:
    """Read the seconds of each part from the files of the run.

    Training time outside of epochs is feature extraction, checkpoints included. Evaluation is the time between the last
    row of metrics and the final evaluation.
    """
    actual = json.loads((trial.folder / "plan.json").read_text(encoding="utf-8"))["actual"]
    with (trial.folder / "metrics.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            outcome.epoch_seconds[PHASES[row["phase"]]].append(float(row["seconds"]))
    for name, seconds in outcome.epoch_seconds.items():
        outcome.seconds[name] = sum(seconds)
    written = [(trial.folder / name).stat().st_mtime for name in ("metrics.csv", "evaluation.json")]
    evaluation = written[1] - written[0]
    training = actual["extraction"] + sum(seconds for _, _, seconds in actual["phases"])
    outcome.seconds["features"] = training - outcome.seconds["phase1"] - outcome.seconds["phase2"]
    outcome.seconds["evaluation"] = evaluation
    outcome.seconds["data"] = actual["seconds"] - training - evaluation
    outcome.seconds["start"] = trial.wall - actual["seconds"]


def read_results(trial: Trial, outcome: interface.Measurements) -> dict[str, str]:
    """Read the accuracies of a run; gives the settings that it chose."""
    results = json.loads((trial.folder / "evaluation.json").read_text(encoding="utf-8"))
    outcome.val_accuracy, outcome.test_accuracy = (
        results[split]["overall"]["accuracy"]["value"] for split in ("val", "test")
    )
    plan = json.loads((trial.folder / "plan.json").read_text(encoding="utf-8"))
    chosen = {choice["setting"]: choice["value"] for choice in plan["choices"]}
    outcome.extra |= {"plan": chosen, "actual": plan["actual"]}
    return chosen


def rounds(arguments: Namespace, outcome: interface.Measurements, chosen: dict[str, str]) -> list[str]:
    """A note for each phase that took another number of epochs than the job has."""
    notes = []
    for index, (phase, asked) in enumerate((("phase1", arguments.epochs_head), ("phase2", arguments.epochs_top))):
        ran = len(outcome.epoch_seconds[phase])
        if ran != asked:
            solver = chosen.get(f"phases.{index}.solver", "not named in the plan")
            notes.append(f"{ran} rounds in {phase} instead of {asked} epochs, solver {solver}")
    return notes


def main() -> None:
    arguments, outcome = interface.begin(__doc__, ("auto", "fp32", "bf16"))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_table(arguments, work / "table.csv")
        first = train("first", work, recipe(arguments, RATES))
        read_times(first, outcome)
        chosen = read_results(first, outcome)
        outcome.extra["cache_mb"] = round(sum(f.stat().st_blocks * 512 for f in work.glob("cache/**/*")) / 1e6)
        outcome.notes += rounds(arguments, outcome, chosen)
        second = train("second", work, recipe(arguments, OTHER_RATES))
        outcome.extra["second_trial_seconds"] = round(second.wall, 3)
    interface.finish(outcome, first.peak, ("thaw-vision", "torch", "torchvision", "timm"), total=first.wall)


if __name__ == "__main__":
    main()
