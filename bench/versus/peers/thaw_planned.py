"""Thaw from its command line as it plans itself, in a fresh process with an empty cache.

Nothing but backbone, weights, seed and precision is given. Its curve has a point for each checkpoint of a phase that is
kept, tested afterwards, and one for the finished run, with its bundle and its report.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.versus import interface
from bench.versus.checkpoints import KeepCheckpoints, accuracies
from bench.versus.curve import Curve
from bench.versus.peers.thaw_cli import given, read_results, train, write_table


def main() -> None:
    arguments, outcome = interface.begin(__doc__, ("auto", "fp32", "bf16"))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_table(arguments, work / "table.csv")
        started = time.time()
        with KeepCheckpoints(work / "planned", work / "kept") as checkpoints:
            trial = train("planned", work, given(arguments))
        read_results(trial, outcome)
        splits, classes = interface.read_rows(arguments.table, arguments.limit)
        images = {path.resolve(): classes[target] for path, target in splits["test"]}
        began = time.perf_counter()
        points = [
            (at - started, value)
            for at, value in accuracies(trial.folder, images, checkpoints.kept, checkpoints.baseline)
        ]
        outcome.curve = Curve(points=[*points, (trial.wall, outcome.test_accuracy)])
        outcome.curve.uncounted = time.perf_counter() - began
    interface.finish(outcome, trial.peak, ("thaw-vision", "torch", "torchvision", "timm"), total=trial.wall)


if __name__ == "__main__":
    main()
